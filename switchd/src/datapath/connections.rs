//! The connection table, as the daemon sees it: it reads records where they are, and has the reaper program
//! remove them.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use switchd_ebpf::layout::{Config, MAX_POLICIES, REAP_BATCH, Reap, Record, TupleBucket, life, place, reap};

use super::clock;
use super::shared::Shared;

/// The connection table.
pub struct Connections {
    records: Shared<Record>,
    tuples: Shared<TupleBucket>,
    config: Arc<Shared<Config>>,
    /// The reaper's list. Whoever holds it runs the reaper.
    reaper: Mutex<Reaper>,
}

struct Reaper {
    list: Shared<Reap>,
    programs: Arc<Mutex<Ebpf>>,
}

/// Attempts to read a record while the datapath changes it.
const READ_ATTEMPTS: u32 = 16;

impl Connections {
    pub(super) fn new(
        records: Shared<Record>,
        tuples: Shared<TupleBucket>,
        config: Arc<Shared<Config>>,
        list: Shared<Reap>,
        programs: Arc<Mutex<Ebpf>>,
    ) -> Self {
        Self { records, tuples, config, reaper: Mutex::new(Reaper { list, programs }) }
    }

    /// Of how many connections each bucket has the original tuple, by which they are found.
    #[must_use]
    pub fn per_bucket(&self) -> Vec<u32> {
        let mut counts = vec![0; self.tuples.len() as usize];
        for (_, record) in self.iter() {
            // What is its own reply has the one tuple.
            let [original, reply] = record.places;
            let (bucket, _) = place::parts(if original == place::NONE { reply } else { original });
            if let Some(count) = counts.get_mut(bucket as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// How many tuples lead to connections: two to each, but for one that is its own reply.
    #[must_use]
    pub fn tuples(&self) -> usize {
        let tags = |bucket: NonNull<TupleBucket>| {
            [0, 1, 2].map(|word| {
                // SAFETY: within the mapping; both sides access the word whole.
                let word = unsafe { AtomicU64::from_ptr(&raw mut (*bucket.as_ptr()).tags[word]) };
                word.load(Ordering::Relaxed)
            })
        };
        let taken = |tags: u64| tags.to_ne_bytes().into_iter().filter(|&tag| tag != 0).count();
        (0..self.tuples.len()).filter_map(|bucket| self.tuples.at(bucket)).flat_map(tags).map(taken).sum()
    }

    /// Records that have ever been used: those past them are empty.
    fn used(&self) -> u32 {
        let Some(config) = self.config.at(0) else { return 0 };
        // SAFETY: within the mapping; both sides access the word whole.
        let used = unsafe { AtomicU64::from_ptr(&raw mut (*config.as_ptr()).records_used) };
        used.load(Ordering::Acquire).min(u64::from(self.records.len())) as u32
    }

    /// Reads a record, if it is alive.
    #[must_use]
    pub fn read(&self, number: u32) -> Option<Record> {
        let record = self.records.at(number)?;
        // SAFETY: within the mapping; both sides access the word whole.
        let word = unsafe { AtomicU64::from_ptr(&raw mut (*record.as_ptr()).life) };
        for _ in 0..READ_ATTEMPTS {
            let before = word.load(Ordering::Acquire);
            if before & life::ALIVE == 0 {
                return None;
            }
            if before & life::LOCKED == 0 {
                // SAFETY: within the mapping, and valid for any bits. It may change meanwhile, which the word
                // then tells; the copy counts only if it has not.
                let copy = unsafe { record.as_ptr().read_volatile() };
                fence(Ordering::Acquire);
                if word.load(Ordering::Relaxed) == before {
                    return Some(Record { life: before, ..copy });
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Which timeout policies living connections have, by number.
    pub(super) fn policies(&self) -> Vec<bool> {
        let mut used = vec![false; MAX_POLICIES as usize];
        for record in (0..self.used()).filter_map(|number| self.records.at(number)) {
            // SAFETY: within the mapping; both sides access the words whole, and a record has its policy before it is
            // alive. Should another connection take its place in between, its policy is counted, which does no harm.
            let (word, policy) = unsafe {
                let word = AtomicU64::from_ptr(&raw mut (*record.as_ptr()).life).load(Ordering::Acquire);
                let policy = AtomicU16::from_ptr(&raw mut (*record.as_ptr()).policy).load(Ordering::Relaxed);
                (word, policy)
            };
            if word & life::ALIVE != 0
                && let Some(used) = used.get_mut(usize::from(policy))
            {
                *used = true;
            }
        }
        used
    }

    /// The connections that are alive and not expired, with their record numbers. They are read one by one as
    /// the iterator goes: it holds nothing up, and no copy of them all.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Record)> {
        let now = clock::now_ns();
        (0..self.used())
            .filter_map(|number| Some((number, self.read(number)?)))
            .filter(move |(_, record)| record.expires >= now)
    }

    /// Removes the connections that `which` names, whatever happens to them meanwhile. Returns how many.
    pub fn flush(&self, which: impl Fn(&Record) -> bool) -> usize {
        let mut removed = 0;
        // One that a packet moves along at the very moment of its removal stays; another round gets it.
        for _ in 0..8 {
            let matching = self.iter().filter(|(_, record)| which(record));
            let (found, reaped) = self.reap(matching, reap::WHATEVER);
            removed += reaped;
            if found == reaped {
                break;
            }
        }
        removed
    }

    /// Removes expired connections. Returns how many.
    pub fn sweep(&self) -> usize {
        let now = clock::now_ns();
        let expired = (0..self.used())
            .filter_map(|number| Some((number, self.read(number)?)))
            .filter(|(_, record)| record.expires < now);
        self.reap(expired, reap::AS_JUDGED).1
    }

    /// Runs the reaper over the given records. Returns how many there were, and how many were removed.
    fn reap(&self, records: impl Iterator<Item = (u32, Record)>, state: u32) -> (usize, usize) {
        let mut records = records.peekable();
        let (mut found, mut removed) = (0, 0);
        while records.peek().is_some() {
            let batch: Vec<Reap> = records
                .by_ref()
                .take(REAP_BATCH as usize)
                .map(|(record, of)| Reap { life: of.life, record, state })
                .collect();
            found += batch.len();
            removed += self.reaper.lock().unwrap_or_else(PoisonError::into_inner).run(&batch);
        }
        (found, removed)
    }
}

impl Reaper {
    fn run(&self, batch: &[Reap]) -> usize {
        // A life of zero ends a list that is not full.
        for (i, wanted) in (0..).zip(batch.iter().chain([&Reap::default()])) {
            if let Some(slot) = self.list.at(i) {
                // SAFETY: within the mapping; the reaper does not run now.
                unsafe { slot.as_ptr().write(*wanted) };
            }
        }
        if let Err(error) = self.start() {
            tracing::error!(error, "connections could not be removed");
            return 0;
        }
        let done = |i: &u32| {
            // SAFETY: within the mapping; the reaper has ended.
            self.list.at(*i).is_some_and(|slot| unsafe { (*slot.as_ptr()).state == reap::DONE })
        };
        (0..batch.len() as u32).filter(done).count()
    }

    fn start(&self) -> Result<(), String> {
        let ebpf = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let program: &Xdp = match ebpf.program("reap").map(TryInto::try_into) {
            Some(Ok(program)) => program,
            _ => return Err("the reaper is not loaded".to_owned()),
        };
        let mut options = TestRunOptions::new();
        // The least that the kernel takes for an Ethernet frame.
        options.data_in = Some(&[0; 14]);
        program.test_run(options).map(|_| ()).map_err(|error| super::load::chain(&error))
    }
}
