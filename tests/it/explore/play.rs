//! Playing a program on a machine, with panics caught.

use crate::explore::oracle::Expected;
use crate::explore::oracle::World;
use crate::explore::program::Op;
use crate::explore::run::Broken;
use crate::explore::run::Past;
use crate::explore::run::Run;
use crate::explore::run::Weather;
use crate::explore::trail::Root;
use crate::support::medium::Medium;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A program at its begin.
pub(super) fn start(root: &Root) -> Run {
    let expected = Expected::new(World::default());
    let mut run = Run::on(Medium::default(), expected, root.options, Past::NONE);
    if let Some(trouble) = root.trouble {
        run.machine.inject(trouble.fault());
        run.weather = trouble.weather();
    }
    run
}

/// Plays a program to its end; gives how many calls had an effect before its last operation. Behind
/// a failure the log must be good for more, in the same process.
pub(super) fn play(run: &mut Run, root: &Root) -> Result<u64, Broken> {
    let mut last = 0;
    run.open()?;
    for letter in root.word.chars() {
        last = run.machine.effects();
        run.step(Op::of(letter)?)?;
    }
    if root.trouble.is_some() && run.weather != Weather::Fair {
        run.heal()?;
        go_on(run, "aw")?;
    }
    Ok(last)
}

pub(super) fn go_on(run: &mut Run, go: &str) -> Result<(), Broken> {
    go.chars().try_for_each(|letter| run.step(Op::of(letter)?))
}

/// A panic is a broken promise, too.
pub(super) fn guarded<T>(what: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Err(format!("it panics: {}", text.unwrap_or("without a message")))
    })
}
