//! The files of a log after something happened to them: verified, repaired, opened, read to the
//! end without an error.

use crate::input::Input;
use crate::mutation;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::model::Row;
use crate::world::WORLDS;
use crate::world::options;
use std::sync::Arc;
use stratalog::{ErrorKind, Keep, RepairOptions, Seek, VerifyOptions};

/// As `open`; the third byte chooses what is to be kept.
pub fn repair(data: &[u8]) {
    let mut input = Input(data);
    let [world, other] = [(); 2].map(|()| &WORLDS[usize::from(input.byte()) % WORLDS.len()]);
    let keep = if input.byte() % 2 == 0 { Keep::Readable } else { Keep::Prefix };
    let mut image = world.image.clone();
    let damage = mutation::apply(&mut image, world, other, &mut input);
    let storage = image.storage();
    let shared = || Arc::new(storage.clone());
    let looked = stratalog::verify(DIR, &VerifyOptions::new().storage(shared()));
    assert!(Image::of(&storage) == image, "verifying changed something");
    let repaired = stratalog::repair(DIR, &RepairOptions::new().storage(shared()).keep(keep));
    let report = match (looked, repaired) {
        (Ok(looked), Ok(repaired)) => {
            assert_eq!(looked.damage(), repaired.found().damage());
            repaired
        }
        (_, Err(error)) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion, ErrorKind::Io];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            // Only who makes checksums fit can say what no log can be.
            // No segment has the id 0, so no name with it is one of a log's.
            let mut segments = image.segments().into_iter();
            let has_none = segments.all(|name| name.ends_with("-00000000.log"));
            let is_gone = has_none && !image.0.contains_key("MANIFEST");
            assert!(damage.forged || is_gone, "{error:?}");
            return;
        }
        (Err(error), Ok(_)) => panic!("repaired, and not verified: {error:?}"),
    };
    let log = match options(shared()).open(DIR) {
        Ok(log) => log,
        Err(error) => panic!("repaired, and does not open: {error:?}\n{report}"),
    };
    if damage.forged {
        return;
    }
    let loses_header = report.to_string().contains("header of the segment");
    for entry in log.iter(Seek::Start).unwrap() {
        let entry = entry.unwrap_or_else(|error| panic!("{error:?}\n{report}"));
        let nth = usize::try_from(entry.offset().get()).unwrap();
        let truth = world.rows.get(nth);
        let found = Row::from(&entry);
        // Where the header of a segment is damaged, nothing vouches for the time of a lone frame.
        let is_true = truth.is_some_and(|truth| match loses_header {
            true => truth.record == found.record,
            false => *truth == found,
        });
        assert!(damage.exchanged || is_true, "{nth}: {found:?}, not {truth:?}\n{report}");
    }
}
