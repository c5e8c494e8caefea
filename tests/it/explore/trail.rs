//! The way to a state, as one line that can be printed, and read again to go there.

use crate::explore::program;
use crate::explore::run::Weather;
use crate::support::choice::Choice;
use crate::support::fault::Fault;
use crate::support::fault::Strike;
use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr;

/// Where a trail begins: a program on an empty disk.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) word: String,
    pub(super) options: u64,
    pub(super) trouble: Option<Trouble>,
}

/// A call of the program that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) nth: u64,
    /// One of [`TROUBLES`].
    pub(super) kind: char,
    pub(super) is_sticky: bool,
}

/// The kinds of trouble.
pub(super) const TROUBLES: &[(char, Strike)] = &[
    ('e', Strike::Error(ErrorKind::Other)),
    ('E', Strike::ErrorAfter(ErrorKind::Other)),
    ('f', Strike::Error(ErrorKind::StorageFull)),
    ('i', Strike::Error(ErrorKind::Interrupted)),
    ('h', Strike::Short),
    ('p', Strike::Fills(20)),
    ('q', Strike::Fills(200)),
    ('c', Strike::FillsCopying(20)),
    ('d', Strike::FillsCopying(200)),
];

impl Trouble {
    pub(super) fn fault(self) -> Fault {
        let found = TROUBLES.iter().find(|(kind, _)| *kind == self.kind);
        let fault = Fault::on_call(found.expect("a kind of trouble").1).nth(self.nth);
        if self.weather() == Weather::Sticky { fault.forever() } else { fault }
    }

    /// A disk that has filled up stays full by itself.
    pub(super) fn weather(self) -> Weather {
        match self.kind {
            'p' | 'q' | 'c' | 'd' => Weather::Full,
            _ if self.is_sticky => Weather::Sticky,
            _ => Weather::Once,
        }
    }
}

/// A crash, and what is done behind it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// How many calls had had an effect.
    pub(super) cut: u64,
    /// `None`: only the process dies.
    pub(super) crash: Option<Choice>,
    pub(super) go: String,
}

/// A root and steps behind it.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    pub(super) root: Root,
    pub(super) steps: Vec<Step>,
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Root { word, options, trouble } = &self.root;
        write!(f, "program={word};options={options}")?;
        if let Some(Trouble { nth, kind, is_sticky }) = trouble {
            let sticky = if *is_sticky { "+" } else { "" };
            write!(f, ";trouble={kind}{nth}{sticky}")?;
        }
        for Step { cut, crash, go } in &self.steps {
            match crash {
                Some(choice) => write!(f, ";cut={cut};crash={choice};go={go}")?,
                None => write!(f, ";cut={cut};crash=kill;go={go}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Trail {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let root = Root { word: String::new(), options: 0, trouble: None };
        let mut trail = Self { root, steps: Vec::new() };
        for part in line.trim().split(';') {
            let (name, value) = part.split_once('=').ok_or(format!("no value in {part}"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("no number in {part}"));
            match name {
                "program" => trail.root.word = value.to_owned(),
                "options" => trail.root.options = number()?,
                "trouble" => trail.root.trouble = Some(trouble(value)?),
                "cut" => {
                    let step = Step { cut: number()?, crash: None, go: String::new() };
                    trail.steps.push(step);
                }
                "crash" if value == "kill" => {}
                "crash" => last(&mut trail)?.crash = Some(value.parse()?),
                "go" => last(&mut trail)?.go = value.to_owned(),
                _ => return Err(format!("no part of a trail is called {name}")),
            }
        }
        for letter in trail.root.word.chars() {
            program::Op::of(letter)?;
        }
        Ok(trail)
    }
}

fn last(trail: &mut Trail) -> Result<&mut Step, String> {
    trail.steps.last_mut().ok_or_else(|| "a crash without a cut before it".into())
}

fn trouble(value: &str) -> Result<Trouble, String> {
    let wrong = || format!("no trouble is called {value}");
    let kind = value.chars().next().filter(|kind| TROUBLES.iter().any(|(other, _)| other == kind));
    let kind = kind.ok_or_else(wrong)?;
    let nth = value[1..].trim_end_matches('+').parse().map_err(|_| wrong())?;
    Ok(Trouble { nth, kind, is_sticky: value.ends_with('+') })
}
