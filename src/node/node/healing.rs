//! What the replica reports: above all records that cannot be read, and how they come back.

use super::{
    CallId, ClientResponse, Key, Node, PeerReply, Report, RosterAt, ServerId, Turn, Urgency,
    cell_of,
};
use crate::model::{Cell, Stamp};
use crate::node::heal::Verdict;
use crate::storage::{Log, Lost, Scrubbed};

impl Node {
    /// What recovery could not read is fetched from the start on.
    pub(super) fn begin_healing(&mut self) {
        for lost in self.replica.lost() {
            self.on_report(Report::Lost(lost));
        }
    }

    pub(super) fn on_report(&mut self, report: Report) {
        match report {
            Report::Inspected { number, entries, truncated } => {
                let entries = entries.into_iter().map(cell_of).collect();
                let response = self.inspected(entries, truncated);
                self.out.answer(CallId(number), Ok(response));
            }
            Report::Lost(Lost { key, version, checksum, place }) => {
                self.out.count("records_damaged");
                let file = Log::Cells.segment_file(place.segment);
                if let Some(more) = self.heal.lines.0.pass(self.now.instant) {
                    let text = format!(
                        "{file}: the record at byte {} is damaged; its key is not answered for until it has been fetched \
                         from another replica, or written anew{more}",
                        place.offset
                    );
                    self.out.notice(Urgency::Error, text);
                }
                self.heal.add(self.now, key, Stamp { version, checksum }, (file, place.offset));
            }
            Report::Scrubbed(scrubbed) => self.on_scrubbed(scrubbed),
            Report::Healed { key } => {
                self.heal.healed(self.now, &key);
                self.out.count("records_healed");
                if let Some(more) = self.heal.lines.1.pass(self.now.instant) {
                    let text = format!("a damaged record was replaced by a good one{more}");
                    self.out.notice(Urgency::Info, text);
                }
            }
        }
    }

    /// Has the next piece read through, if it is time.
    pub(super) fn go_on_scrubbing(&mut self) {
        // What a server lacks that is being rebuilt comes first.
        let is_busy = self.replica.in_hand() > 0 || self.join.is_some();
        let active = self.replica.active();
        let Some(segments) = self.scrub.wants(&self.config, self.now, is_busy, active) else {
            return;
        };
        let roster = RosterAt { membership: &self.membership, now: self.now.instant };
        let (now, config, clock, out) = (self.now, &self.config, &mut self.clock, &mut self.out);
        let turn = &mut Turn { now, config, roster: &roster, clock, life: None, out };
        if !self.replica.scrub(turn, segments) && self.scrub.on_end(now) {
            self.note_scrub();
        }
    }

    fn on_scrubbed(&mut self, scrubbed: Scrubbed) {
        self.scrub.on_scrubbed(&self.config, self.now.instant, scrubbed);
        if scrubbed.damaged {
            self.out.count("segments_damaged");
            let file = Log::Cells.segment_file(scrubbed.segment);
            let text = format!(
                "{file} is damaged, the scrub has found; what can be read of it is written anew, and the file removed"
            );
            self.out.notice(Urgency::Error, text);
        }
        if scrubbed.is_done {
            self.note_scrub();
        }
    }

    /// It is saved with what else has changed, or a little later.
    fn note_scrub(&mut self) {
        self.keeper.identity.scrub = self.scrub.mark();
        self.positions_changed = true;
    }

    pub(super) fn on_heal_reply(&mut self, from: ServerId, key: &Key, reply: PeerReply) {
        let roster = RosterAt { membership: &self.membership, now: self.now.instant };
        let (now, config, clock, out) = (self.now, &self.config, &mut self.clock, &mut self.out);
        let turn = &mut Turn { now, config, roster: &roster, clock, life: None, out };
        let verdict = self.heal.on_reply(turn, from, key, reply);
        let Some(Verdict::Nowhere) = verdict else { return };
        // In the life that begins nobody counts on what this one acknowledged, so the key may be forgotten.
        self.rebuild("a record of its log could not be read back, and no other replica holds it");
        self.heal.done(key);
        self.replica.forget_lost(&self.config, key);
    }

    /// Keys as clients know them. `next` is a place, to be given back as it is.
    pub(super) fn inspected(&self, entries: Vec<(Key, Cell)>, truncated: bool) -> ClientResponse {
        let next =
            if truncated { entries.last().map(|(place, _)| place.successor()) } else { None };
        let key = |place: &Key| self.config.partitioner.key(place);
        let entries = entries.iter().map(|(place, cell)| (key(place), cell.clone())).collect();
        ClientResponse::Inspected { entries, next }
    }
}
