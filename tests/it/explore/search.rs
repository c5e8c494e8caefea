//! The search from one program: its crashes, what each leaves, and the crashes that follow.

use crate::explore::explorer::Cuts;
use crate::explore::explorer::Effort;
use crate::explore::explorer::Explorer;
use crate::explore::oracle::Expected;
use crate::explore::oracle::Kind;
use crate::explore::play::go_on;
use crate::explore::play::guarded;
use crate::explore::play::play;
use crate::explore::play::start;
use crate::explore::program::GO_ON;
use crate::explore::run::Past;
use crate::explore::run::Reading;
use crate::explore::run::Run;
use crate::explore::trail::Root;
use crate::explore::trail::Step;
use crate::explore::trail::Trail;
use crate::support::choice::Choice;
use crate::support::choice::GRAINS;
use crate::support::choice::Units;
use crate::support::choice::WHOLE;
use crate::support::faulty::Wanted;
use crate::support::medium::Hash;
use crate::support::medium::Medium;
use crate::support::medium::Numbers;

/// So many calls with an effect an open and what goes on behind it have, more or less.
const EFFECTS: u64 = 40;

/// The search from one program.
pub(super) struct Search<'a> {
    explorer: &'a Explorer,
    effort: Effort,
    trail: Trail,
    numbers: Numbers,
}

/// A crash: behind which call, what gets through (`None`: only the process dies), and what is left.
struct Crash {
    cut: u64,
    choice: Option<Choice>,
    medium: Medium,
}

impl<'a> Search<'a> {
    pub(super) fn new(explorer: &'a Explorer, root: &Root, effort: Effort) -> Self {
        let trail = Trail { root: root.clone(), steps: Vec::new() };
        let mut hash = Hash::default();
        hash.number(effort.seed);
        hash.bytes(trail.to_string().as_bytes());
        Self { explorer, effort, trail, numbers: Numbers(hash.0) }
    }

    /// Plays the program, then kills the process and cuts the power behind its calls, each with so
    /// many choices for a grain.
    pub(super) fn run(mut self, cuts: Cuts, choices: usize) {
        self.explorer.is_at(&self.trail);
        let mut run = start(&self.trail.root);
        run.record(Wanted::All);
        let done = guarded(|| play(&mut run, &self.trail.root));
        run.kill();
        let from = match (done, cuts) {
            (Err(why), _) => return self.explorer.report(&self.trail, &why),
            (Ok(last), Cuts::OfTheLast) => last,
            (Ok(_), Cuts::All) => 0,
            // The program may never get to the call.
            (Ok(_), Cuts::BehindTrouble) => run.machine.struck_at().unwrap_or(u64::MAX),
        };
        let tape = run.machine.take_tape().into_iter().filter(|(cut, _)| *cut > from);
        for (nth, (cut, medium)) in tape.enumerate() {
            // Behind a failure the first ones matter most.
            if cuts == Cuts::BehindTrouble && nth >= 3 && self.numbers.below(16) > 0 {
                continue;
            }
            if self.explorer.is_done() {
                return;
            }
            self.explorer.count_cut();
            self.crash((cut, &medium), run.expected_at(cut), run.past(), choices);
        }
    }

    /// All that can be left when it is over behind a call.
    fn crash(
        &mut self,
        (cut, medium): (u64, &Medium),
        expected: &Expected,
        past: Past,
        choices: usize,
    ) {
        let left = self.effort.depth - 1;
        let killed = Crash { cut, choice: None, medium: medium.clone() };
        self.visit(killed, expected.clone().after(Kind::Kill), past, left);
        let mut last = None;
        for grain in GRAINS {
            let units = Units::of(medium, grain);
            // No write was long enough to be torn at this grain and whole at the one before.
            if last.replace(units.len()) == Some(units.len()) {
                continue;
            }
            for choice in units.choices(choices, &mut self.numbers) {
                let image = units.image(medium, &choice);
                let crash = Crash { cut, choice: Some(choice), medium: image };
                self.visit(crash, expected.clone().after(Kind::Power), past, left);
            }
        }
    }

    /// Takes a step on the trail: recovers, checks, goes on, checks, and crashes again as often as
    /// is left.
    fn visit(&mut self, crash: Crash, expected: Expected, past: Past, left: u8) {
        let Crash { cut, choice, medium } = crash;
        if self.explorer.is_done() || !self.explorer.enter(&medium, &expected, left) {
            return;
        }
        let go = if left == 0 { GO_ON[0] } else { *self.numbers.pick(GO_ON) };
        self.trail.steps.push(Step { cut, crash: choice, go: go.to_owned() });
        self.explorer.is_at(&self.trail);
        let mut run = Run::on(medium, expected, self.trail.root.options, past);
        let moments = self.effort.children * u64::from(left > 0);
        let moments = (0..moments).map(|_| 1 + self.numbers.below(EFFECTS)).collect();
        run.record(Wanted::At(moments));
        if self.numbers.below(4) == 0 {
            run.reading = Reading::EveryWay;
        }
        let opened = guarded(|| {
            run.open()?;
            run.clear_up();
            let opened = (run.machine.effects(), run.machine.medium());
            go_on(&mut run, go)?;
            Ok(opened)
        });
        run.kill();
        match opened {
            Err(why) => self.explorer.report(&self.trail, &why),
            Ok(opened) if left > 0 => self.crash_again(&run, opened, left - 1),
            Ok(_) => {}
        }
        self.trail.steps.pop();
    }

    /// The next crashes: behind the open and at the end, when all that was served or acknowledged
    /// has to be there, and wherever the dice say, also inside the open.
    fn crash_again(&mut self, run: &Run, opened: (u64, Medium), left: u8) {
        let end = (run.machine.effects(), run.machine.medium());
        for (cut, medium) in [opened, end] {
            let units = Units::of(&medium, WHOLE);
            let choice = units.choice(|_| false);
            let medium = units.image(&medium, &choice);
            self.again(run, Crash { cut, choice: Some(choice), medium }, left);
        }
        for (cut, medium) in run.machine.take_tape() {
            let dies = self.numbers.below(8) == 0;
            let units = Units::of(&medium, *self.numbers.pick(&GRAINS));
            let choice = (!dies).then(|| units.any(&mut self.numbers));
            let medium = match &choice {
                Some(choice) => units.image(&medium, choice),
                None => medium,
            };
            self.again(run, Crash { cut, choice, medium }, left);
        }
    }

    fn again(&mut self, run: &Run, crash: Crash, left: u8) {
        let kind = if crash.choice.is_none() { Kind::Kill } else { Kind::Power };
        let expected = run.expected_at(crash.cut).clone().after(kind);
        self.visit(crash, expected, run.past(), left);
    }
}
