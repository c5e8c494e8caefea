//! Locks, atomics and threads: the real ones, or under `--cfg loom` those of its models.
//!
//! A model tries every order in which threads can get at what is named here. So whatever threads
//! of a log share goes through this module, except immutable values, which need no order.

#[cfg(loom)]
mod modelled;

#[cfg(loom)]
pub(crate) use modelled::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub(crate) use modelled::{Condvar, Mutex, MutexGuard, RwLock, RwLockWriteGuard};
#[cfg(loom)]
pub(crate) use modelled::{hint, thread};
#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockWriteGuard};
#[cfg(not(loom))]
pub(crate) use std::hint;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(not(loom))]
pub(crate) use std::thread;
