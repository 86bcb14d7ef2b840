//! Timeout policies: how long connections live.
//!
//! A connection keeps the policy of the zone that it was committed in, as a number. So what a policy says never
//! changes while a zone or a living connection refers to it: a zone gets another number instead. Zones that want the
//! same share one. A number becomes free when no zone refers to it, every packet has left that may have read it from a
//! zone before, and no connection has it; all that is found out only when no number is left that was never used.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use appctl::vsctl::{self, Timeout};
use conntrack_core::{Timeouts, tcp::State};

use super::kernel::settle;
use super::shared::Shared;
use super::{Connections, Zones};

/// The timeout policies. Number 0 is that of all zones without one of their own.
pub struct Policies {
    timeouts: Shared<Timeouts>,
    /// Held while policies are changed, and zones made to refer to them.
    used: Mutex<Used>,
}

/// Which policies there are.
struct Used {
    /// What each says; none: it is free. Number 0 never is.
    policies: Vec<Option<Timeouts>>,
    /// The zones that do not have the default, or want no longer to have it.
    zones: BTreeMap<u16, Place>,
}

/// Where a zone's timeouts are.
#[derive(Clone, Copy)]
enum Place {
    /// In a policy.
    Policy(u16),
    /// They wait for a policy to become free; the zone has the default meanwhile.
    Waiting(Timeouts),
}

impl Policies {
    pub(super) fn new(timeouts: Shared<Timeouts>) -> Self {
        let mut policies = vec![None; timeouts.len() as usize];
        if let Some(default) = policies.first_mut() {
            *default = Some(Timeouts::DEFAULT);
        }
        Self { timeouts, used: Mutex::new(Used { policies, zones: BTreeMap::new() }) }
    }

    /// Gives the new connections of a zone these timeouts, or the default ones. Those that there are keep theirs.
    ///
    /// If living connections hold all policies, the zone has the default until [`retry`](Self::retry) finds a free
    /// one.
    pub fn assign(&self, zone: u16, wanted: Option<Timeouts>, zones: &Zones, connections: &Connections) {
        let used = &mut *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.place(used, zone, wanted, zones, connections);
    }

    /// Tries again where [`assign`](Self::assign) found no policy free.
    pub fn retry(&self, zones: &Zones, connections: &Connections) {
        let used = &mut *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |(zone, place): (&u16, &Place)| match place {
            Place::Waiting(timeouts) => Some((*zone, *timeouts)),
            Place::Policy(_) => None,
        };
        for (zone, timeouts) in used.zones.iter().filter_map(waiting).collect::<Vec<_>>() {
            self.place(used, zone, Some(timeouts), zones, connections);
        }
    }

    fn place(
        &self,
        used: &mut Used,
        zone: u16,
        wanted: Option<Timeouts>,
        zones: &Zones,
        connections: &Connections,
    ) {
        let Some(wanted) = wanted else {
            used.zones.remove(&zone);
            zones.set_policy(zone, 0);
            return;
        };
        // A policy that the zone alone has may be the one to become free.
        let waiting = used.zones.insert(zone, Place::Waiting(wanted));
        let Some(policy) = used.find(&wanted).or_else(|| self.make(used, &wanted, zones, zone, connections))
        else {
            if !matches!(waiting, Some(Place::Waiting(_))) {
                tracing::warn!(
                    zone,
                    "living connections hold all timeout policies: the default counts for now"
                );
            }
            return;
        };
        used.zones.insert(zone, Place::Policy(policy));
        zones.set_policy(zone, policy);
    }

    /// A policy that is free, filled with these timeouts.
    fn make(
        &self,
        used: &mut Used,
        wanted: &Timeouts,
        zones: &Zones,
        zone: u16,
        connections: &Connections,
    ) -> Option<u16> {
        let free = |used: &Used| used.policies.iter().position(Option::is_none);
        let policy = match free(used) {
            Some(policy) => policy,
            None => {
                zones.set_policy(zone, 0);
                settle();
                used.release(&connections.policies());
                free(used)?
            }
        };
        let slot = self.timeouts.at(policy as u32)?.as_ptr();
        let be_liberal = self.liberal(0)?.load(Ordering::Relaxed);
        // SAFETY: within the mapping; no zone and no connection refers to the policy, so no packet looks at it.
        unsafe { slot.write(Timeouts { be_liberal, ..*wanted }) };
        used.policies[policy] = Some(*wanted);
        u16::try_from(policy).ok()
    }

    /// Whether TCP segments are held to the window.
    #[must_use]
    pub fn checks_sequences(&self) -> bool {
        self.liberal(0).is_none_or(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Says whether TCP segments are held to the window, for all policies, those that nobody uses yet included.
    pub fn check_sequences(&self, check: bool) {
        // No policy is to be filled meanwhile.
        let _used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for word in (0..self.timeouts.len()).filter_map(|policy| self.liberal(policy)) {
            word.store(u32::from(!check), Ordering::Relaxed);
        }
    }

    /// The word of a policy that says whether TCP segments outside of the window are let through.
    fn liberal(&self, policy: u32) -> Option<&AtomicU32> {
        let timeouts = self.timeouts.at(policy)?;
        // SAFETY: within the mapping; both sides access the word whole.
        Some(unsafe { AtomicU32::from_ptr(&raw mut (*timeouts.as_ptr()).be_liberal) })
    }
}

impl Used {
    /// The policy that says just this, if there is one.
    fn find(&self, wanted: &Timeouts) -> Option<u16> {
        let place = self.policies.iter().position(|policy| policy.as_ref() == Some(wanted));
        place.and_then(|policy| u16::try_from(policy).ok())
    }

    /// Frees the policies that no zone refers to, and no connection.
    fn release(&mut self, of_connections: &[bool]) {
        let mut referred = of_connections.to_vec();
        referred.resize(self.policies.len(), false);
        referred[0] = true;
        for place in self.zones.values() {
            if let Place::Policy(policy) = place {
                referred[usize::from(*policy)] = true;
            }
        }
        for (policy, referred) in self.policies.iter_mut().zip(referred) {
            if !referred {
                *policy = None;
            }
        }
    }
}

/// The timeouts that a user asked for, over the default ones. They are understood as OVS's kernel datapath does, which
/// tracks by the same rules: it has one state less for UDP, and one for ICMP.
#[must_use]
pub fn timeouts(wanted: &vsctl::Timeouts) -> Timeouts {
    let mut timeouts = Timeouts::DEFAULT;
    for (timeout, &seconds) in wanted {
        match timeout {
            Timeout::TcpSynSent => timeouts.tcp[State::SYN_SENT.index()] = seconds,
            Timeout::TcpSynRecv => timeouts.tcp[State::SYN_RECV.index()] = seconds,
            Timeout::TcpEstablished => timeouts.tcp[State::ESTABLISHED.index()] = seconds,
            Timeout::TcpFinWait => timeouts.tcp[State::FIN_WAIT.index()] = seconds,
            Timeout::TcpCloseWait => timeouts.tcp[State::CLOSE_WAIT.index()] = seconds,
            Timeout::TcpLastAck => timeouts.tcp[State::LAST_ACK.index()] = seconds,
            Timeout::TcpTimeWait => timeouts.tcp[State::TIME_WAIT.index()] = seconds,
            Timeout::TcpClose => timeouts.tcp[State::CLOSE.index()] = seconds,
            Timeout::TcpSynSent2 => timeouts.tcp[State::SYN_SENT2.index()] = seconds,
            Timeout::TcpRetransmit => timeouts.tcp_retransmission = seconds,
            Timeout::TcpUnack => timeouts.tcp_unacknowledged = seconds,
            Timeout::UdpSingle => timeouts.udp = seconds,
            Timeout::UdpMultiple => timeouts.udp_stream = seconds,
            Timeout::IcmpFirst => (timeouts.icmp, timeouts.icmpv6) = (seconds, seconds),
            Timeout::UdpFirst | Timeout::IcmpReply => {}
        }
    }
    timeouts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_as_by_default() {
        let asked = [(Timeout::TcpTimeWait, 7), (Timeout::IcmpFirst, 8), (Timeout::UdpFirst, 9)];
        let mut wanted = Timeouts { icmp: 8, icmpv6: 8, ..Timeouts::DEFAULT };
        wanted.tcp[State::TIME_WAIT.index()] = 7;
        assert_eq!(timeouts(&asked.into()), wanted);
        assert_eq!(timeouts(&vsctl::Timeouts::new()), Timeouts::DEFAULT);
    }

    #[test]
    fn a_policy_is_free_when_nothing_refers_to_it() {
        let other = |udp| Timeouts { udp, ..Timeouts::DEFAULT };
        let mut used = Used {
            policies: vec![Some(Timeouts::DEFAULT), Some(other(1)), Some(other(2)), Some(other(3))],
            zones: [(5, Place::Policy(2)), (6, Place::Waiting(other(4)))].into(),
        };
        assert_eq!(used.find(&other(3)), Some(3));
        used.release(&[false, true]);
        assert_eq!(used.policies, [Some(Timeouts::DEFAULT), Some(other(1)), Some(other(2)), None]);
        assert_eq!((used.find(&other(3)), used.find(&Timeouts::DEFAULT)), (None, Some(0)));
    }
}
