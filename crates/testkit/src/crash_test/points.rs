//! The crash points that are covered: all that there are, which a test of the tree holds true.

/// A crash point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) whose: Whose,
}

/// Which process passes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// `pipe run`
    Scheduler,
    /// `pipe worker`
    Worker,
}

const fn scheduler(name: &'static str) -> Point {
    Point { name, whose: Whose::Scheduler }
}

const fn worker(name: &'static str) -> Point {
    Point { name, whose: Whose::Worker }
}

/// In the order in which a stage meets them.
pub(crate) const POINTS: &[Point] = &[
    scheduler("scheduler.locked"),
    scheduler("scheduler.attempt"),
    scheduler("scheduler.spawned"),
    worker("worker.job-read"),
    worker("worker.mid-output"),
    worker("worker.before-result"),
    worker("worker.after-result"),
    scheduler("scheduler.worker-ended"),
    scheduler("file.before-rename"),
    scheduler("file.after-rename"),
    scheduler("object.before-rename"),
    scheduler("object.after-rename"),
    scheduler("store.objects-placed"),
    scheduler("store.manifest-written"),
    scheduler("store.stamps-written"),
    scheduler("scheduler.ingested"),
    scheduler("record.before"),
    scheduler("record.after"),
    scheduler("scheduler.recorded"),
    scheduler("scheduler.cleared"),
    scheduler("scheduler.before-end"),
];

/// Points that neither a run nor a worker of the test's pipeline passes. A test beside the code dies at each of them:
/// `cache::checkout::tests`, `cache::gc::tests`.
pub(crate) const ELSEWHERE: &[&str] =
    &["checkout.staged", "checkout.half", "gc.runs-removed", "gc.records-removed", "gc.file-removed"];
