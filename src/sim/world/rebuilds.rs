//! Rebuilds end: what a server has copied from a source it does not copy from it again, however late a page is.
//!
//! A source in another life of it, or of the server itself, is another source: what is remembered is not there any more, or not
//! here.

use super::World;
use crate::model::{Incarnation, Key, ServerId};

/// Who copies from whom, each in which life, and where the range begins that is copied.
pub(super) type Copy = (ServerId, Incarnation, u64, ServerId, u64, Key);

impl World {
    /// A server asks for a page.
    pub(super) fn watch_rebuild(&mut self, from: ServerId, to: ServerId) {
        let Some(node) = &self.servers[&from].node else { return };
        let Some((start, source, cursor)) = node.copying().filter(|(_, source, _)| *source == to)
        else {
            return;
        };
        let lives = (self.servers[&from].life, self.servers[&source].life);
        let copy = (from, node.hello(to).incarnation, lives.0, source, lives.1, start);
        let before = self.copied.insert(copy, cursor.clone());
        if let Some(before) = before.filter(|before| cursor < *before)
            && self.unsettled.is_empty()
        {
            self.unsettled.push(format!(
                "rebuild: server {from} copies from server {to} from '{cursor}' on, and had got to '{before}'"
            ));
        }
    }
}
