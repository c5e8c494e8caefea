//! The parent's side of a [`child`](crate::child): starts it, hears what it says, kills it.

use crate::child::MARK;
use crate::child::ORDERS;
use crate::ledger::Ledger;
use crate::orders::Orders;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

pub(crate) struct Writer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Writer {
    pub(crate) fn start(orders: &Orders) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child::child", "--nocapture", "--test-threads=1"])
            .env(ORDERS, orders.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next thing it says, or `None` if it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            // What was cut short by its death it has not said.
            let line = line.strip_suffix('\n')?;
            if let Some(said) = line.strip_prefix(MARK) {
                return Some(said.to_owned());
            }
        }
    }

    /// Hears so many things, and puts them down; fewer if it ends.
    pub(crate) fn hear_some(&mut self, times: u64, ledger: &mut Ledger) {
        for _ in 0..times {
            let Some(said) = self.hear() else { return };
            ledger.put_down(&said);
        }
    }

    /// Kills it; what it had said counts, and a panic that came first is one of the test.
    pub(crate) fn kill(mut self, ledger: &mut Ledger) {
        self.child.kill().unwrap();
        self.hear_some(u64::MAX, ledger);
        assert_ne!(self.status().code(), Some(101), "a panic");
    }

    /// Hears it to its end.
    pub(crate) fn finish(mut self, ledger: &mut Ledger) -> ExitStatus {
        self.hear_some(u64::MAX, ledger);
        self.status()
    }

    /// How it ended.
    pub(crate) fn status(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
