//! Mistakes that can be switched on, one at a time, to see that the tests find each of them.
//!
//! Only a build with `--cfg stratalog_bugs` has them, and the variable `STRATALOG_BUG` names the
//! one that a process makes; in any other build a switch is a constant `false`. Each stands where
//! somebody could make it in good faith, and says which promise it breaks. The tests that find
//! them are listed in `tests/it/seeded.rs`.

/// Every bug, and what breaks it.
macro_rules! bugs {
    ($($(#[$promise:meta])* $bug:ident,)*) => {
        /// A mistake that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[$promise])* $bug,)*
        }

        /// The names of all bugs.
        #[cfg(stratalog_bugs)]
        pub const SEEDED_BUGS: &[&str] = &[$(stringify!($bug)),*];

        #[cfg(stratalog_bugs)]
        const ALL: &[Bug] = &[$(Bug::$bug),*];
    };
}

bugs! {
    // A sync, and what is told of it.
    /// Synced means synced: it is told before the sync.
    AckBeforeSync,
    /// After a failed sync nothing is acknowledged: its error is lost.
    SyncErrorIgnored,
    /// A failed sync is never tried again: here it is, and succeeds.
    SyncRetried,
    /// A sync covers what was written before it: what was written meanwhile is called durable too.
    SyncCoversMore,
    /// A sync covers all that is written: segments that ended are left out.
    OldSegmentLeftOut,
    /// A sync covers all that is written: only one segment that ended is remembered.
    OneOldSegment,
    /// After a failure nothing is acknowledged: the log goes on.
    PoisonForgotten,
    /// A failure is told to all who wait: they are told that all is well.
    WaitersToldSuccess,

    // Writing.
    /// Readers see only bytes that are there: they are told, and memory let go, before the write.
    PublishedBeforeWritten,
    /// All of a record is written: a write that did a part of it counts as whole.
    ShortWriteTaken,
    /// What is written never changes: zeros for writes to come go over the last ones.
    ZerosOverFrames,
    /// A batch is whole or not there: its records are appended one by one.
    BatchInPieces,
    /// A durable mark tells what was synced: it claims all below its frame.
    GapTooSmall,
    /// Append times never go back: they do from one open to the next.
    TimeGoesBack,

    // A full disk.
    /// What was refused is not there: a part of it stays in the file.
    ResidueStays,
    /// What was refused is not there: a power cut brings it back.
    ErasureNotSynced,
    /// What was accepted as buffered stays: a full disk takes it back.
    AcceptedTakenBack,
    /// Readers see only what cannot be taken back: they see what a full disk may refuse.
    RefusableShown,
    /// A log can be closed on a full disk: nothing is kept back for its manifest.
    NoReserve,

    // A roll.
    /// A name that the manifest mentions is durable before it: it may be lost.
    NamesNotSynced,
    /// The manifest is a whole one: its bytes may be lost, and its name kept.
    ManifestNotSynced,
    /// What is acted upon is durable: a power cut brings the old manifest back.
    RenameNotSynced,
    /// A failed sync is never tried again: that of a directory is.
    DirFailureRefused,
    /// A failed sync is never tried again: that of a manifest is, on the same file.
    FailedManifestKept,
    /// A failure that may have had an effect ends appending: that of the manifest is ignored.
    ManifestFailureIgnored,
    /// A segment that the manifest names has a header: it may be lost.
    HeaderNotSynced,
    /// A failed sync keeps a segment from being used: that of a new one is ignored.
    RollIgnoresFailedSync,
    /// A sealed segment is durable: every segment that ended is called so.
    EndedIsSealed,
    /// A segment that the manifest calls begun has a header: it may be lost.
    BegunTooSoon,
    /// What was truncated stays so, also without a manifest: what is prepared outlives it, with ids
    /// below those of outputs of compaction.
    PreparedOutlivesCut,
    /// A segment's id is never used again: the last one is after the next open.
    IdReused,
    /// Bytes of another segment never validate: all have one seed.
    OneSeed,

    // Closing.
    /// A log that was closed is durable: it is written and not synced.
    CloseWithoutSync,
    /// A log that failed is not called closed: it is.
    ClosedAfterFailure,
    /// One writer a directory: the lock is free while the last bytes are synced.
    LockFreedEarly,

    // Opening.
    /// What opening shows is durable: an undecided rename is not decided.
    DirNotSyncedAtOpen,
    /// What was appended behind a close is found: the mark of the close is believed.
    ClosedBelieved,
    /// What was appended behind a roll is found: prepared segments are not looked at.
    PreparedLeftOut,
    /// Readers elsewhere see what is synced: they do not look beyond the segments with a row.
    BegunNotSeen,
    /// A log has no hole: a segment that ended while no manifest was written may lack its end.
    PassedBelieved,
    /// What opening shows is durable: the header of a segment that was begun is not written anew.
    BegunHeaderLeft,
    /// Damage that no crash explains is an error: that of a segment that was prepared is cut.
    BegunMarksIgnored,
    /// What the manifest calls written may be torn: it is taken for sound.
    WrittenBelieved,
    /// What opening shows is durable: it is not synced.
    ServedUnsynced,
    /// The page cache is not trusted: nothing is written anew.
    CacheTrusted,
    /// What opening shows is durable: the first frame without a proof is not written anew.
    FirstUnprovenLeft,
    /// What opening shows is durable: segments that ended are not written anew.
    OnlyActiveRewritten,
    /// What was cut never comes back: it stays where new records go.
    TornTailStays,
    /// Damage that no crash explains is an error: it is cut as a torn tail.
    LaterMarkIgnored,
    /// A log has no hole: a segment that ended, and lost its last frames, is kept.
    ShortSegmentKept,
    /// A log has no hole: what follows a segment that is cut is kept.
    HoleLeft,
    /// Append times never go back: they do behind a crash.
    LastTimeForgotten,
    /// A log has no hole: a frame that is torn is passed over.
    BadFrameSkipped,
    /// A file goes only when no manifest names it: it goes before that is durable.
    RemovedEarly,
    /// An old manifest is not followed: what only a later one can have named is removed.
    NewerSegmentRemoved,

    // Compaction.
    /// What replaces segments is durable: it is not synced.
    OutputNotSynced,
    /// A file goes only when no manifest names it: those that are replaced go before that.
    InputsRemovedFirst,
    /// A file that a run leaves behind is garbage: its id is not used up, and it is refused.
    OutputIdNotUsedUp,
    /// A tombstone stays for its time: it goes at once.
    TombstoneGoesEarly,
    /// A tombstone stays while there may be something that it hides: one that cannot be read is
    /// forgotten.
    TombstoneGoesAboveAside,
    /// Where the map of keys is full a run ends: keys without room are taken for compared.
    FullMapIgnored,
    /// All below that offset has been compared: it is stated of all segments there are.
    CompactedTooFar,
    /// What a run takes apart is compared again if it is cut off: that is not stated.
    CompactedNotTakenBack,
    /// Every offset is covered by a frame: the hole at the end of a frame is not.
    HoleForgotten,
    /// A record goes only for the sake of one that stays: a truncation meanwhile goes unnoticed.
    TruncationUnseen,
    /// No file is changed when a log is closed: a run of compaction is not waited for.
    RunOutlivesClose,

    // Reading.
    /// A manifest that changed is damaged: it is taken.
    ManifestUnchecked,
    /// A frame whose body changed is damaged: opening takes it.
    BodyUnchecked,
    /// A frame whose body changed is damaged: readers get it.
    ReadUnchecked,
    /// A header that changed is damaged: it is taken.
    HeaderUnchecked,
    /// No answer depends on an index: where it leads is not looked at.
    IndexBelieved,
    /// Readers of a synced log see what is durable: they see what is written.
    UndurableShown,
}

impl Bug {
    /// Whether this process makes the mistake.
    #[cfg(not(stratalog_bugs))]
    #[inline(always)]
    pub(crate) const fn is_on(self) -> bool {
        false
    }

    #[cfg(stratalog_bugs)]
    pub(crate) fn is_on(self) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| {
            let name = std::env::var("STRATALOG_BUG").ok().filter(|name| !name.is_empty())?;
            let found = ALL.iter().zip(SEEDED_BUGS).find(|(_, known)| **known == name);
            found.map(|(bug, _)| *bug).or_else(|| panic!("there is no bug {name}"))
        });
        *chosen == Some(self)
    }

    /// Does a step, unless the mistake is to leave it out.
    #[inline(always)]
    pub(crate) fn spares<E>(self, step: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if self.is_on() { Ok(()) } else { step() }
    }

    /// What came of a step, unless the mistake is not to look at it.
    #[inline(always)]
    pub(crate) fn forgives<E>(self, result: Result<(), E>) -> Result<(), E> {
        if self.is_on() { Ok(()) } else { result }
    }
}
