//! Counts of the shapes that rows have.

use std::collections::BTreeMap;

use pipe_records::DataFile;
use pipe_stage::Context;

use crate::Shape;

/// Files that are named for mixing shapes.
const NAMED: usize = 5;

/// How many usable rows of each file have each shape.
#[derive(Debug, Default)]
pub(crate) struct Shapes(BTreeMap<(usize, Shape), u64>);

impl Shapes {
    pub(crate) fn add(&mut self, file: usize, shape: Shape) {
        *self.0.entry((file, shape)).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, rows) in &other.0 {
            *self.0.entry(*key).or_default() += rows;
        }
    }

    pub(crate) fn report(&self, context: &Context, files: &[DataFile]) {
        let mut all = BTreeMap::<Shape, u64>::new();
        let mut by_file = BTreeMap::<usize, Vec<(Shape, u64)>>::new();
        for ((file, shape), rows) in &self.0 {
            *all.entry(*shape).or_default() += rows;
            by_file.entry(*file).or_default().push((*shape, *rows));
        }
        let all: Vec<_> = all.into_iter().collect();
        context.info(format!("took rows: {}", describe(&all)));
        let mixed: Vec<_> = by_file.into_iter().filter(|(_, shapes)| shapes.len() > 1).collect();
        for (file, shapes) in mixed.iter().take(NAMED) {
            let name = &files[*file].name;
            context.info(format!("{name} mixes shapes: {} (`shape` fixes one)", describe(shapes)));
        }
        if mixed.len() > NAMED {
            context.info(format!("{} more files mix shapes", mixed.len() - NAMED));
        }
        for (shape, rows) in all {
            context.figure(&format!("rows_{}", shape.name()), rows);
        }
    }
}

/// `7 as messages, 2 as text`.
fn describe(shapes: &[(Shape, u64)]) -> String {
    let parts: Vec<_> = shapes.iter().map(|(shape, rows)| format!("{rows} as {}", shape.name())).collect();
    parts.join(", ")
}
