//! What caused what, over two logs that know nothing of each other's offsets.
//!
//! A shop asks and a bank answers; each appends to a log of its own and follows the other's.
//! Offsets order one log, and clocks of two machines order nothing. Two headers do:
//!
//! - `correlation`: the same in every record that belongs to one piece of business. It is made by
//!   who begins it (a shop's name and the offset its record will get would do; here, a number), and
//!   copied by whoever answers.
//! - `lamport`: a number that is higher than that of everything its writer had seen. Sorted by it,
//!   and by the name where it is equal, the records of both logs are in an order in which no answer
//!   stands before its question. That two numbers differ does not say that one caused the other.
//!
//! The number has to go up after a restart too: it is found in the log's last record.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::thread;
use stratalog::{EntryBuf, Follow, Log, Record, Seek};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let open = |name| Log::open(dir.path().join(name));
    let (shop, bank) = (open("shop")?, open("bank")?);
    // The two would be processes; who follows needs a copy of the other's log, or a connection.
    let (answers, questions) = (bank.follow(Seek::Start)?, shop.follow(Seek::Start)?);
    let at_the_bank = Writer::new("bank", bank.clone())?;
    thread::scope(|scope| {
        let bank = scope.spawn(|| answer(at_the_bank, questions));
        let asked = Writer::new("shop", shop.clone()).and_then(|shop| ask(shop, answers));
        // Nobody asks any more, whatever came of it: that is what ends the other's loop.
        shop.close()?;
        bank.join().map_err(|_| "the bank failed")??;
        asked
    })?;
    bank.close()?;

    // What remains, after both have stopped: one history of the two logs.
    let logs = [("shop", open("shop")?), ("bank", open("bank")?)];
    let mut history = Vec::new();
    for (name, log) in &logs {
        for entry in log.iter(Seek::Start)? {
            let entry = entry?;
            history.push((lamport(&entry)?, *name, entry));
        }
    }
    history.sort_by_key(|(lamport, name, _)| (*lamport, *name));
    for (lamport, name, entry) in &history {
        let correlation = header(entry, "correlation")?;
        println!("{lamport} {name} [{correlation}] {}", entry.value().escape_ascii());
    }
    let [(name, log), _] = logs;
    println!("after a restart the shop goes on at {}", Writer::new(name, log)?.clock + 1);
    Ok(())
}

/// Asks, waits for the answer, and thanks for it.
fn ask(mut writer: Writer, mut answers: Follow) -> Result<()> {
    for (correlation, question) in [("order-17", "may 17 pay 30?"), ("order-18", "may 18 pay 5?")] {
        writer.append(question, correlation)?;
        let answer = answers.next().ok_or("the bank has closed")??;
        writer.saw(&answer)?;
        writer.append("thank you", header(&answer, "correlation")?)?;
    }
    Ok(())
}

/// Answers each question until the shop has closed its log.
fn answer(mut writer: Writer, questions: Follow) -> Result<()> {
    for question in questions {
        let question = question?;
        writer.saw(&question)?;
        if question.value().ends_with(b"?") {
            writer.append("it may", header(&question, "correlation")?)?;
        }
    }
    Ok(())
}

/// Who appends to a log, with its Lamport clock.
struct Writer {
    name: &'static str,
    log: Log,
    /// The highest number it has given or seen.
    clock: u64,
}

impl Writer {
    fn new(name: &'static str, log: Log) -> Result<Self> {
        let mut last = log.cursor(Seek::End)?;
        let clock = last.prev()?.map(|entry| lamport(&entry.to_buf())).transpose()?;
        Ok(Self { name, log, clock: clock.unwrap_or(0) })
    }

    /// Takes note of a record of another log.
    fn saw(&mut self, entry: &EntryBuf) -> Result<()> {
        self.clock = self.clock.max(lamport(entry)?);
        Ok(())
    }

    fn append(&mut self, value: &str, correlation: &str) -> Result<()> {
        self.clock += 1;
        let record = Record::new(value)
            .header("from", self.name)
            .header("correlation", correlation)
            .header("lamport", self.clock.to_string());
        self.log.append(record)?;
        Ok(())
    }
}

fn header<'a>(entry: &'a EntryBuf, name: &str) -> Result<&'a str> {
    let found = entry.headers().find(|(header, _)| *header == name);
    let (_, value) = found.ok_or_else(|| format!("{} has no {name}", entry.offset()))?;
    Ok(str::from_utf8(value)?)
}

fn lamport(entry: &EntryBuf) -> Result<u64> {
    Ok(header(entry, "lamport")?.parse()?)
}
