//! The types of [loom](https://docs.rs/loom) with the faces of those they stand in for.

use loom::sync;
use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::PoisonError;
use std::sync::TryLockError;
use std::time::Duration;

pub(crate) use loom::hint;
pub(crate) use loom::sync::RwLockWriteGuard;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// As `parking_lot::Mutex`: without poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: &self.0, held: Some(locked(&self.0)) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: &self.0, held: Some(held) })
    }
}

fn locked<T>(mutex: &sync::Mutex<T>) -> sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a sync::Mutex<T>,
    /// `None` only while a [`Condvar`] waits with it.
    held: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("a guard is not used while its thread waits")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("a guard is not used while its thread waits")
    }
}

/// As `parking_lot::RwLock`: without poison.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `parking_lot::Condvar`, which waits with a guard it gives back.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.held =
            guard.held.take().map(|held| self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    /// Here time has always passed: the others get a turn, and then it is over.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> TimedOut {
        drop(guard.held.take());
        thread::yield_now();
        guard.held = Some(locked(guard.mutex));
        TimedOut
    }
}

/// That a wait has ended because its time was up.
#[derive(Debug)]
pub(crate) struct TimedOut;

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        true
    }
}

/// As `std::thread`. A thread is parked with a token of its own: the one that loom gives its
/// threads is lost, or wakes a thread that waits for a lock, if it is given at the wrong moment.
pub(crate) mod thread {
    pub(crate) use loom::thread::{JoinHandle, ThreadId, yield_now};

    use loom::sync::Notify;
    use loom::thread;
    use std::io;
    use std::num::NonZero;
    use std::sync::Arc;
    use std::time::Duration;

    /// In words: what loom gives is less than a write takes.
    const STACK_SIZE: usize = 0x8000;

    /// As `std::thread::Builder`.
    #[derive(Debug)]
    pub(crate) struct Builder(thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(thread::Builder::new().stack_size(STACK_SIZE))
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn<F>(self, run: F) -> io::Result<JoinHandle<()>>
        where
            F: FnOnce() + Send + 'static,
        {
            self.0.spawn(run)
        }
    }

    loom::thread_local! {
        static TOKEN: Arc<Notify> = Arc::new(Notify::new());
    }

    #[derive(Clone, Debug)]
    pub(crate) struct Thread {
        id: ThreadId,
        token: Arc<Notify>,
    }

    impl Thread {
        pub(crate) fn id(&self) -> ThreadId {
            self.id
        }

        pub(crate) fn unpark(&self) {
            self.token.notify();
        }
    }

    pub(crate) fn current() -> Thread {
        Thread { id: thread::current().id(), token: TOKEN.with(Arc::clone) }
    }

    /// As many as a model has threads, or nearly.
    pub(crate) fn available_parallelism() -> io::Result<NonZero<usize>> {
        Ok(NonZero::<usize>::MIN.saturating_add(1))
    }

    pub(crate) fn park() {
        TOKEN.with(Arc::clone).wait();
    }

    /// Here time has always passed: the others get a turn, and then it is over.
    pub(crate) fn park_timeout(_: Duration) {
        yield_now();
    }
}
