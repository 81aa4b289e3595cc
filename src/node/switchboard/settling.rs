//! How a switchboard settles: who has to announce what he holds before anything else is taken up, and
//! what each is told then.

use std::collections::BTreeSet;

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::switchboard::{Role, Switchboard};
use crate::realtime::registry::LinkId;
use crate::wire::bus::{Down, Up};
use crate::wire::bus_codec::Garbled;

impl Switchboard {
    pub(super) fn take_announcement(
        &mut self,
        conn: ConnId,
        id: LinkId,
        message: Up<'_>,
        now: Now,
    ) -> Result<(), Garbled> {
        match message {
            Up::Announce(holding) => {
                // While its link was away, its subscribers may have missed what others received.
                match self.cluster {
                    None => self.history.forget(holding.channel),
                    Some(_) => self.note_behind(id, holding.channel, holding.position),
                }
                let was_occupied = self.registry.is_occupied(holding.channel);
                let added = self.registry.announce(id, &holding);
                self.mark(holding.channel, None);
                for (member, _) in &holding.members {
                    self.mark(holding.channel, Some(member.user_id));
                }
                if !self.is_settling() {
                    for member in added {
                        self.tell_member_added(id, holding.channel, member, now);
                    }
                    self.tell_occupancy(holding.channel, was_occupied, now);
                    self.report_all();
                }
                Ok(())
            }
            Up::Sessions { names } => {
                for name in names {
                    self.sessions.hold(name, id);
                }
                Ok(())
            }
            Up::Announced => {
                if let Some(link) = self.link(conn) {
                    link.role = Role::Worker(id);
                }
                self.awaited.remove(&id);
                match self.settling {
                    None => self.welcome(conn, id, now),
                    Some(_) => self.settle_if_known(now),
                }
                Ok(())
            }
            _ => Err(Garbled),
        }
    }

    /// Slots that have announced all they hold. One that is being handed over has two links and
    /// counts once.
    pub(super) fn announced(&self) -> u32 {
        self.slots_announced().len() as u32
    }

    fn slots_announced(&self) -> BTreeSet<u32> {
        let links = self.links.iter().flatten().filter(|link| !link.ended);
        let slots = links.filter_map(|link| match link.role {
            Role::Worker(id) => Some(id.slot),
            _ => None,
        });
        slots.collect()
    }

    /// Announcements to wait for: of each link that may hold something, since the successor in its
    /// slot does not speak for it, and one for each slot from which nobody is there.
    pub(super) fn missing(&self) -> usize {
        let mut slots = self.slots_announced();
        slots.extend(self.awaited.iter().map(|id| id.slot));
        let empty = (self.links_expected as usize).saturating_sub(slots.len());
        self.awaited.len() + empty
    }

    pub(super) fn is_settling(&self) -> bool {
        self.settling.is_some()
    }

    /// Whether all that is held here has been announced.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_settling() || self.missing() == 0
    }

    /// Settles when everybody has spoken; in a cluster, when it is known too what others hold, or that
    /// it cannot be. Otherwise clients would see all others leave and come.
    pub(super) fn settle_if_known(&mut self, now: Now) {
        if !self.is_complete() {
            return;
        }
        self.join(now);
        let learns = self.cluster.as_ref().is_some_and(|it| it.is_learning());
        if self.is_settling() && !learns {
            self.settle(now);
        }
    }

    /// Tells a worker that it is heard from now on, and what is true.
    pub(super) fn welcome(&mut self, conn: ConnId, id: LinkId, now: Now) {
        self.send(conn, &Down::Welcome, now);
        self.tell_truth(conn, id, now);
    }

    /// Everybody has spoken, or had the time to: takes up what was held.
    pub(super) fn settle(&mut self, now: Now) {
        self.settling = None;
        self.awaited.clear();
        self.report_all();
        let mut workers: Vec<(LinkId, ConnId)> =
            self.by_id.iter().map(|(id, conn)| (*id, *conn)).collect();
        workers.sort_unstable();
        for (id, conn) in workers {
            if self
                .link(conn)
                .is_some_and(|link| link.role == Role::Worker(id))
            {
                self.welcome(conn, id, now);
            }
        }
        self.join(now);
        while self.settling.is_none()
            && let Some((conn, frame)) = self.held.pop_front()
        {
            if self.take_frame(conn, &frame, now).is_err() {
                self.drop_garbled(conn, now);
            }
        }
    }
}
