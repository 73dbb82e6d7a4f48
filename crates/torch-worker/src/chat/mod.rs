//! `pipe-torch chat`: loads a model and answers what it is asked, for `pipe chat` and `pipe serve`. See `pipe_chat` for
//! what is said.

mod answer;
mod model;

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use pipe_chat::{Order, Question, Reply};

use self::{answer::Answering, model::Refusal};

/// Questions that nobody waits for any more.
#[derive(Clone, Default)]
struct Cancelled(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ids: BTreeSet<u64>,
    /// Whether nobody waits for anything.
    all: bool,
}

impl Cancelled {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: u64) {
        self.state().ids.insert(id);
    }

    fn add_all(&self) {
        self.state().all = true;
    }

    fn has(&self, id: u64) -> bool {
        let state = self.state();
        state.all || state.ids.contains(&id)
    }

    /// Forgets a question that was answered, and those before it: they are answered in their order.
    fn forget(&self, id: u64) {
        self.state().ids.retain(|other| *other > id);
    }
}

/// Runs until its input ends.
pub(crate) fn main() -> ExitCode {
    pipe_stage::die_with_parent();
    let (send, orders) = mpsc::channel();
    let cancelled = Cancelled::default();
    let reader = std::thread::Builder::new().name("orders".to_owned()).spawn({
        let cancelled = cancelled.clone();
        move || {
            hear(io::stdin().lock(), &cancelled, &send);
            cancelled.add_all();
        }
    });
    match reader {
        Ok(_) if serve(&orders, &cancelled, &mut say).is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Reads orders until there are no more.
fn hear(input: impl BufRead, cancelled: &Cancelled, orders: &mpsc::Sender<Result<Order, String>>) {
    for line in input.lines() {
        let Ok(line) = line else { return };
        let heard = match serde_json::from_str(&line) {
            Ok(Order::Cancel { id }) => {
                cancelled.add(id);
                continue;
            }
            Ok(order) => orders.send(Ok(order)),
            Err(error) => orders.send(Err(error.to_string())),
        };
        if heard.is_err() {
            return;
        }
    }
}

/// Somebody who no longer listens.
struct Gone;

/// Where replies go.
type Say<'a> = dyn FnMut(&Reply) -> Result<(), Gone> + 'a;

fn say(reply: &Reply) -> Result<(), Gone> {
    let mut line = serde_json::to_vec(reply).map_err(|_| Gone)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).map_err(|_| Gone)
}

fn serve(orders: &mpsc::Receiver<Result<Order, String>>, cancelled: &Cancelled, say: &mut Say<'_>) -> Result<(), Gone> {
    let load = match orders.recv() {
        Ok(Ok(Order::Load(load))) => load,
        Ok(heard) => {
            let message = format!("the first order must be to load a model, it is {heard:?}");
            say(&Reply::Refused { message, hint: None, environment: false })?;
            return Err(Gone);
        }
        Err(_) => return Ok(()),
    };
    let (model, loaded) = match model::load(&load) {
        Ok(loaded) => loaded,
        Err(refusal) => {
            let Refusal { message, hint, environment } = refusal;
            say(&Reply::Refused { message, hint, environment })?;
            return Err(Gone);
        }
    };
    say(&Reply::Loaded(loaded))?;
    let mut answering = Answering::new(model);
    while let Ok(order) = orders.recv() {
        match order {
            Ok(Order::Ask(question)) => {
                answer(&mut answering, &question, cancelled, say)?;
                cancelled.forget(question.id);
            }
            // A second model, or a line that is no order: whoever says so is not the `pipe` of this program.
            Ok(Order::Load(_) | Order::Cancel { .. }) | Err(_) => return Err(Gone),
        }
    }
    Ok(())
}

fn answer(
    answering: &mut Answering,
    question: &Question,
    cancelled: &Cancelled,
    say: &mut Say<'_>,
) -> Result<(), Gone> {
    let go_on = || !cancelled.has(question.id);
    match answering.answer(question, &go_on, say) {
        Ok(done) => say(&Reply::Done(done)),
        Err(answer::Error::Gone) => Err(Gone),
        Err(error) => {
            say(&Reply::Failed { id: question.id, fault: error.fault(), message: model::with_causes(&error) })
        }
    }
}

#[cfg(test)]
mod tests;
