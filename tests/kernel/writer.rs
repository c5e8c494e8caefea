//! The parent's side of a [`child`](crate::child): starts it, hears what it says, kills it.

use crate::child::MARK;
use crate::child::ORDERS;
use crate::ledger::Ledger;
use crate::orders::Orders;
use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
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

    /// Kills it; what it had said counts. It must have been alive and well until now.
    pub(crate) fn kill(self, ledger: &mut Ledger) {
        let signal = self.end(ledger).signal();
        assert!(signal.is_none_or(|signal| signal == SIGKILL), "ended by signal {signal:?}");
    }

    /// As [`kill`](Writer::kill), on a medium that failed: then whoever has mapped a file of it may
    /// have got a signal, but no wrong byte.
    pub(crate) fn kill_after_failure(self, ledger: &mut Ledger) {
        let signal = self.end(ledger).signal();
        let expected = |signal| signal == SIGKILL || signal == SIGBUS;
        assert!(signal.is_none_or(expected), "ended by signal {signal:?}");
    }

    fn end(mut self, ledger: &mut Ledger) -> ExitStatus {
        self.child.kill().unwrap();
        self.hear_some(u64::MAX, ledger);
        let status = self.status();
        assert_ne!(status.code(), Some(PANIC), "a panic");
        status
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

/// How a process of the test harness ends when its test panicked.
pub(crate) const PANIC: i32 = 101;

const SIGKILL: i32 = 9;
const SIGBUS: i32 = 7;

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
