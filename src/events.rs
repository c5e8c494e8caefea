//! What happens to a log, as events of `tracing` in a build with that feature; else nothing.
//!
//! A subscriber is somebody else's code: no event is sent under a lock, nor by an append or a read.

/// Sends an event, whose fields are not even computed without the feature.
macro_rules! event {
    ($level:ident, $($field:tt)+) => {{
        #[cfg(feature = "tracing")]
        {
            tracing::event!(target: "stratalog", tracing::Level::$level, $($field)+);
        }
    }};
}

pub(crate) use event;
