//! An outbox with two consumers: a ledger that counts each order once although it crashes, and mail
//! that is slow, for which the log keeps what it has not read. `cargo run --example consumers`.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]
#![expect(clippy::disallowed_methods, reason = "a file stands for a database")]

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;
use stratalog::{Log, Maintenance, Offset, Options, Retention, Seek};

const ORDERS: u64 = 1000;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result {
    // The process that crashes is this one, started with the place and a number of orders.
    let mut arguments = env::args_os().skip(1);
    if let (Some(place), Some(orders)) = (arguments.next(), arguments.next()) {
        let orders = orders.to_str().unwrap_or_default().parse()?;
        return keep_the_ledger(Path::new(&place), orders);
    }
    let place = tempfile::tempdir()?;
    let place = place.path();

    let log = open(place)?;
    // They are there before the first order, so that none is removed before they have read it.
    log.consumer("ledger")?;
    log.consumer("mail")?;
    for hundred in 0..ORDERS / 100 {
        let orders = hundred * 100..(hundred + 1) * 100;
        log.append_batch(orders.map(|number| cents(number).to_string()))?;
    }
    log.close()?;
    drop(log);

    let crashes = [120, 333, 70];
    for orders in crashes {
        let status =
            Command::new(env::current_exe()?).arg(place).arg(orders.to_string()).status()?;
        println!("the ledger crashed after {orders} orders: {}", !status.success());
    }
    let log = open(place)?;
    println!("it goes on at {}, {}", log.consumer("ledger")?.committed(), ledger(place)?);
    drop(log);
    keep_the_ledger(place, u64::MAX)?;
    let total: u64 = (0..ORDERS).map(cents).sum();
    println!(
        "at the end it holds {}, as it should: {}",
        ledger(place)?,
        ledger(place)?.total == total
    );

    let log = open(place)?;
    let mut mail = log.consumer("mail")?;
    for _ in 0..400 {
        mail.next()?;
    }
    mail.commit()?;
    log.roll()?;
    let report = log.enforce_retention()?;
    println!("mail is slow: {report}");
    for consumer in log.consumers()? {
        println!(
            "  {} has committed {:?}, lag {:?}",
            consumer.name, consumer.committed, consumer.lag
        );
    }
    while mail.next()?.is_some() {}
    mail.commit()?;
    println!("mail has caught up: {}", log.enforce_retention()?);
    log.close()?;
    Ok(())
}

/// What an order costs.
fn cents(number: u64) -> u64 {
    number * 7919 % 10_000
}

fn open(place: &Path) -> stratalog::Result<Log> {
    // A record goes as soon as all have read it, whole segments at a time.
    let retention = Retention::new().max_age(Duration::ZERO).keep_unread(true);
    let options = Options::new().segment_bytes(1024).retention(retention);
    options.maintenance(Maintenance::Manual).open(place.join("orders"))
}

/// Stands for a database: the sum, and up to which order it counts, change together or not at all.
#[derive(Debug, Default)]
struct Ledger {
    total: u64,
    next: u64,
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cents of {} orders", self.total, self.next)
    }
}

fn ledger(place: &Path) -> Result<Ledger> {
    match fs::read_to_string(ledger_path(place)) {
        Ok(text) => {
            let (total, next) = text.split_once(' ').ok_or("not a ledger")?;
            Ok(Ledger { total: total.parse()?, next: next.parse()? })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ledger::default()),
        Err(error) => Err(error.into()),
    }
}

fn ledger_path(place: &Path) -> PathBuf {
    place.join("ledger")
}

/// Counts orders, and crashes after so many without a word to anybody.
fn keep_the_ledger(place: &Path, orders: u64) -> Result {
    let log = open(place)?;
    let mut consumer = log.consumer("ledger")?;
    let mut ledger = ledger(place)?;
    // The database knows better: the position in the log is committed after it, and less often. If
    // the database has been put back to an older state, orders are counted again from there on, or
    // it is an error that they are gone. To go by the later of the two would leave them out.
    consumer.seek(Seek::Offset(Offset::from(ledger.next)))?;
    let mut left = orders;
    while let Some(order) = consumer.next()? {
        ledger.total += std::str::from_utf8(order.value())?.parse::<u64>()?;
        ledger.next = order.offset().get() + 1;
        let next = place.join("ledger.next");
        fs::write(&next, format!("{} {}", ledger.total, ledger.next))?;
        fs::rename(next, ledger_path(place))?;
        left -= 1;
        if left == 0 {
            process::abort();
        }
        if ledger.next.is_multiple_of(50) {
            make_durable(place)?;
            consumer.commit()?;
        }
    }
    make_durable(place)?;
    consumer.commit()?;
    log.close()?;
    Ok(())
}

/// What a commit says is done has to survive what the commit survives.
fn make_durable(place: &Path) -> Result {
    let ledger = ledger_path(place);
    if ledger.exists() {
        fs::File::open(ledger)?.sync_all()?;
        fs::File::open(place)?.sync_all()?;
    }
    Ok(())
}
