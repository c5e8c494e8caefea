//! Opening a log: the lock, the manifest, recovery, and then everything that runs.

use crate::bugs::Bug;
use crate::commit::Bell;
use crate::commit::Board;
use crate::commit::Commit;
use crate::commit::Mark;
use crate::commit::Settings;
use crate::commit::Start;
use crate::commit::TailSettings;
use crate::commit::Tools;
use crate::commit::Writer;
use crate::compaction::Compactor;
use crate::consumers::Consumers;
use crate::cursor::View;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::events::event;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Row;
use crate::format::names;
use crate::format::names::Name;
use crate::log::Handle;
use crate::log::Log;
use crate::log::background::Background;
use crate::log::closing::Running;
use crate::log::keeper::Keeper;
use crate::manifest;
use crate::options::Durability;
use crate::options::Maintenance;
use crate::options::Options;
use crate::retention::Retention;
use crate::segment::Reading;
use crate::state::Found;
use crate::state::Proof;
use crate::state::Recovered;
use crate::state::Recovery;
use crate::state::Segments;
use crate::state::State;
use crate::state::recover;
use crate::storage::Dir;
use crate::storage::LockGuard;
use crate::sync::Mutex;
use crate::units::Offset;
use crate::units::Timestamp;
use std::io;
use std::path::Path;
use std::sync::Arc;

impl Options {
    /// Opens the log in the directory `path`, and makes it first if there is none and
    /// [`create`](Options::create) allows it.
    ///
    /// When it returns, everything that can be read has been made durable, whatever a crash left;
    /// [`Log::recovery`] reports what that took. However long the log is, it reads the active
    /// segment from what is known to be durable, and the segments before it that no sync covered:
    /// at most [`max_unsynced_bytes`](Options::max_unsynced_bytes) and a segment.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) if a writer has it open; [`Corrupt`](ErrorKind::Corrupt) for
    /// damage that no crash explains, and
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion), with nothing changed;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an option out of its limits or a path that is
    /// no directory; [`Io`](ErrorKind::Io) and
    /// [`StorageFull`](ErrorKind::StorageFull) as the system reports.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Log> {
        self.validate()?;
        let path = path.as_ref();
        let path = std::path::absolute(path)
            .map_err(|error| Error::io("cannot make absolute", path, error))?;
        let dir = Dir::new(Arc::clone(&self.storage), path);
        let board = Board::new(self.lock(&dir)?, self.clock.now());
        let recovered = self.recover(&dir, &board)?;
        let log = self.start(dir, board, recovered)?;
        event!(INFO, path = %log.path().display(), recovery = ?log.recovery(), "opened");
        Ok(log)
    }

    /// Makes sure that there is a directory, and takes its lock.
    fn lock(&self, dir: &Dir) -> Result<Box<dyn LockGuard>> {
        if self.create {
            self.storage.create_dir(dir.path()).map_err(|error| unusable(dir, error))?;
        } else {
            // Locking makes a file, which has no place where there is no log.
            require_log(dir)?;
        }
        let path = dir.path_of(names::LOCK);
        self.storage.lock(&path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let what = "another writer has the log open; a log has one writer at a time";
                Error::new(ErrorKind::Locked, what).with_path(&path)
            }
            _ => Error::io("cannot lock", &path, error),
        })
    }

    fn recover(&self, dir: &Dir, board: &Board) -> Result<Recovered> {
        match manifest::read(dir)? {
            Some(manifest) => {
                manifest::check_finished(dir, &manifest)?;
                let mut recovered = recover(dir, manifest, self.reading(), &board.said())?;
                let last = recovered.manifest.last_append_time;
                recovered.report.clock_ahead =
                    last.since(self.clock.now()).filter(|ahead| !ahead.is_zero());
                Ok(recovered)
            }
            None => self.create_log(dir),
        }
    }

    /// Makes an empty log, unless there are segments whose manifest is gone.
    fn create_log(&self, dir: &Dir) -> Result<Recovered> {
        for entry in dir.list()? {
            if let Some(Name::Segment { .. }) = names::parse(&entry.name) {
                let what = "the manifest is missing, but there are segments; restore the manifest, \
                            or repair the log";
                return Err(
                    Error::new(ErrorKind::Corrupt, what).with_path(&dir.path_of(names::MANIFEST))
                );
            }
        }
        let manifest = Manifest {
            log_id: u128::from(self.storage.random()) << 64 | u128::from(self.storage.random()),
            closed: false,
            origin: Origin::Log,
            start_offset: Offset::ZERO,
            next_segment_id: 1,
            last_append_time: Timestamp::MIN,
            truncation_epoch: 0,
            compacted_to: Offset::ZERO,
            rows: Vec::new(),
        };
        manifest::replace(dir, &manifest).map_err(Failure::into_error)?;
        let report = Recovery { found: Found::New, ..Recovery::default() };
        let (proof, garbage) = (Proof::Durable, Vec::new());
        Ok(Recovered { manifest, active: None, report, cut_at: None, proof, garbage })
    }

    fn start(&self, dir: Dir, board: Board, recovered: Recovered) -> Result<Log> {
        let Recovered { manifest, active, report, cut_at, proof, garbage } = recovered;
        let points = board.points(&manifest, cut_at);
        let end = active.as_ref().map_or(manifest.end_offset(), |active| active.end_offset());
        let start = Start {
            end,
            last_at: match Bug::TimeGoesBack.is_on() {
                true => Timestamp::MIN,
                false => manifest.last_append_time,
            },
            last_record_at: Row::last_record_at(&manifest.rows),
            next_segment_id: manifest.next_segment_id,
            storage: Arc::clone(&self.storage),
        };
        let log_id = manifest.log_id;
        let segment = active.as_ref().map(|active| Arc::clone(active.segment()));
        let state = State { manifest, active: segment, proof, changes: 0 };
        let segments = Segments::new(dir.clone(), self.read_mode, state).with_garbage(garbage);
        let segments = Arc::new(segments);
        let (bell, keeper_bell) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let reading = self.reading();
        let writer = Writer::new(Arc::clone(&segments), reading, self.segment_bytes, active);
        let writer = writer.with_keeper(Arc::clone(&keeper_bell));
        let clock = Arc::clone(&self.clock);
        let tools = Tools { clock, bell: Arc::clone(&bell), board, points };
        let commit = Arc::new(Commit::new(self.settings(), tools, start, writer));
        commit.post();
        let compactor = self.compaction.clone().map(|compaction| {
            let (segments, commit) = (Arc::clone(&segments), Arc::clone(&commit));
            let clock = Arc::clone(&self.clock);
            let settings = (compaction, self.segment_bytes);
            Arc::new(Compactor::new(segments, commit, clock, settings, Arc::clone(&keeper_bell)))
        });
        let in_background = self.maintenance == Maintenance::Background;
        // Without anything that becomes due by itself there is nothing to keep.
        let consumers = Arc::new(Consumers::new(&dir, log_id));
        let has_keeper = in_background
            && (self.retention != Retention::new()
                || self.segment_age.is_some()
                || compactor.is_some());
        let keeper = Arc::new(Keeper {
            commit: Arc::clone(&commit),
            segments: Arc::clone(&segments),
            consumers,
            clock: Arc::clone(&self.clock),
            retention: self.retention,
            segment_age: self.segment_age,
            compactor,
            on_error: self.on_background_error.clone(),
            bell: has_keeper.then(|| Arc::clone(&keeper_bell)),
            last: Mutex::default(),
        });
        let background = if in_background {
            let bells = (bell, has_keeper.then_some(keeper_bell));
            Some(Background::start(&keeper, bells, self.sync_interval)?)
        } else {
            None
        };
        let durability = self.durability;
        let view = View::here(segments, Arc::clone(&commit), durability);
        let running = Running::new(background);
        let (max_batch_bytes, recovery) = (self.max_batch_bytes, report);
        Ok(Log::new(Handle {
            view,
            commit,
            durability,
            max_batch_bytes,
            recovery,
            keeper,
            running,
        }))
    }

    fn settings(&self) -> Settings {
        Settings {
            tail: TailSettings { segment_bytes: self.segment_bytes, segment_age: self.segment_age },
            max_batch_bytes: self.max_batch_bytes,
            max_unsynced_bytes: self.max_unsynced_bytes,
            shows: match self.durability {
                Durability::Synced => Mark::Durable,
                Durability::Buffered | Durability::Written => Mark::Written,
            },
            has_background: self.maintenance == Maintenance::Background,
        }
    }

    fn reading(&self) -> Reading {
        Reading { mode: self.read_mode, map_len: self.segment_bytes }
    }
}

fn require_log(dir: &Dir) -> Result<()> {
    let listed = dir.storage().list(dir.path()).map_err(|error| unusable(dir, error))?;
    let of_a_log = |name| matches!(name, Name::Manifest | Name::Segment { .. });
    if listed.iter().any(|entry| names::parse(&entry.name).is_some_and(of_a_log)) {
        return Ok(());
    }
    let source = io::ErrorKind::NotFound.into();
    Err(Error::io("there is no log here, and create is false", dir.path(), source))
}

fn unusable(dir: &Dir, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            let what = "the path of a log is that of a directory, and this is something else";
            Error::new(ErrorKind::InvalidInput, what).with_path(dir.path())
        }
        _ => Error::io("cannot open the directory", dir.path(), error),
    }
}
