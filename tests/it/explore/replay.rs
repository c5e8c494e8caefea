//! Goes the way to one state again, and tells what is there at each step.

use crate::explore::oracle::Kind;
use crate::explore::play::go_on;
use crate::explore::play::guarded;
use crate::explore::play::play;
use crate::explore::play::start;
use crate::explore::run::Broken;
use crate::explore::run::Reading;
use crate::explore::run::Run;
use crate::explore::trail::Step;
use crate::explore::trail::Trail;
use crate::support::choice::Units;
use crate::support::faulty::Wanted;
use crate::support::medium::Medium;
use std::fmt::Write;

/// Plays a trail; gives the story, and how it ends.
pub(super) fn replay(trail: &Trail) -> (String, Result<(), Broken>) {
    let mut story = String::new();
    let mut run = start(&trail.root);
    let wanted =
        |steps: &[Step]| Wanted::At(steps.first().map(|step| step.cut).into_iter().collect());
    run.record(wanted(&trail.steps));
    let mut played = guarded(|| play(&mut run, &trail.root).map(drop));
    run.kill();
    tell(&mut story, &format!("program {}", trail.root.word), &run);
    for (nth, step) in trail.steps.iter().enumerate() {
        if played.is_err() {
            break;
        }
        let Some((_, medium)) = run.machine.take_tape().pop() else {
            return (story, Err(format!("there is no {}th call with an effect", step.cut)));
        };
        let (medium, kind) = crash(&medium, step);
        let expected = run.expected_at(step.cut).clone().after(kind);
        show(
            &mut story,
            &format!("{kind:?} behind call {}, expected {expected}", step.cut),
            &medium,
        );
        run = Run::on(medium, expected, trail.root.options, run.past());
        run.reading = Reading::EveryWay;
        run.record(wanted(&trail.steps[nth + 1..]));
        played = guarded(|| {
            run.open()?;
            run.clear_up();
            tell(&mut story, "opened", &run);
            go_on(&mut run, &step.go)
        });
        run.kill();
        tell(&mut story, &format!("went on with {}", step.go), &run);
    }
    (story, played)
}

fn crash(medium: &Medium, step: &Step) -> (Medium, Kind) {
    match &step.crash {
        None => (medium.clone(), Kind::Kill),
        Some(choice) => (Units::of(medium, choice.grain).image(medium, choice), Kind::Power),
    }
}

fn tell(story: &mut String, what: &str, run: &Run) {
    let effects = run.machine.effects();
    let what = format!("{what}: {effects} calls with an effect, {}", run.expected_at(effects));
    show(story, &what, &run.machine.medium());
}

fn show(story: &mut String, what: &str, medium: &Medium) {
    writeln!(story, "{what}").expect("a string takes it");
    for line in medium.describe() {
        writeln!(story, "    {line}").expect("a string takes it");
    }
}
