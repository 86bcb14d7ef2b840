//! What was done to veths' peers, on disk: a daemon that is killed cannot undo it, the next one does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::netdev::Prepared;

/// What tells one start of the machine from another: devices have other numbers then, and features are new.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The file beside the state file; there is none while there is nothing to undo.
#[derive(Debug)]
pub(super) struct PreparedFile {
    path: PathBuf,
    /// What it holds.
    saved: Vec<Prepared>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    boot: String,
    prepared: Vec<Prepared>,
}

impl PreparedFile {
    /// The file that goes with a state file.
    pub(super) fn beside(state: &Path) -> Self {
        let mut path = state.to_owned().into_os_string();
        path.push(".prepared");
        Self { path: path.into(), saved: Vec::new() }
    }

    /// What an earlier daemon has left undone, since the machine was started.
    pub(super) fn load(&mut self) -> Vec<Prepared> {
        let document = fs::read(&self.path).and_then(|bytes| Ok(serde_json::from_slice::<Document>(&bytes)?));
        match document {
            Ok(document) if boot().is_ok_and(|boot| boot == document.boot) => {
                self.saved.clone_from(&document.prepared);
                document.prepared
            }
            Ok(_) => Vec::new(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}: peers may stay prepared ({error})", self.path.display());
                }
                Vec::new()
            }
        }
    }

    /// Notes what is about to be done, so that there is no moment at which the file does not know of it.
    pub(super) fn add(&mut self, planned: &Prepared) {
        self.save(self.saved.iter().chain([planned]).cloned().collect());
    }

    /// Keeps what there is to undo now. The ports work without; hence no error.
    pub(super) fn save(&mut self, prepared: Vec<Prepared>) {
        if prepared == self.saved {
            return;
        }
        if let Err(error) = self.replace(&prepared) {
            let path = self.path.display();
            tracing::warn!("{path}: cannot be written; if switchd is killed, peers stay prepared ({error})");
        }
        self.saved = prepared;
    }

    /// Replaces the file as a whole. It need not outlive a crash of the machine, so nothing is synced.
    fn replace(&self, prepared: &[Prepared]) -> io::Result<()> {
        if prepared.is_empty() {
            return fs::remove_file(&self.path);
        }
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let document = Document { boot: boot()?, prepared: prepared.to_vec() };
        fs::write(&new, serde_json::to_vec_pretty(&document)?)?;
        fs::rename(&new, &self.path)
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridges::tests::Scratch;

    const PREPARED: &str = r#"{"changes": {"device": 7, "peer": {"ifindex": 8, "name": "p", "netns": null},
        "before": [["rx-gro", false]]}}"#;

    fn file(scratch: &Scratch) -> PreparedFile {
        PreparedFile::beside(&scratch.path().join("state"))
    }

    #[test]
    fn what_is_saved_is_there_until_it_is_undone() {
        let scratch = Scratch::new("prepared");
        let prepared: Vec<Prepared> = vec![serde_json::from_str(PREPARED).unwrap()];
        assert_eq!(file(&scratch).load(), []);
        file(&scratch).save(prepared.clone());
        let mut next = file(&scratch);
        assert_eq!(next.load(), prepared);
        next.add(&prepared[0]);
        assert_eq!(file(&scratch).load(), [prepared.clone(), prepared].concat());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "no temporary file is left");
        next.save(Vec::new());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_damaged_or_of_another_boot_is_not_undone() {
        let scratch = Scratch::new("prepared-other");
        let path = file(&scratch).path;
        for text in ["", "{", &format!(r#"{{"boot": "another", "prepared": [{PREPARED}]}}"#)] {
            fs::write(&path, text).unwrap();
            assert_eq!(file(&scratch).load(), [], "{text}");
        }
    }
}
