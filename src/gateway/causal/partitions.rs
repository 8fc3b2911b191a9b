//! Partitions: the distinct replica sets of the cluster, counted in the order of the ranges that they keep. With
//! `groups` placement these are disjoint; with `ring` they overlap, and a server's own is that of the range it owns.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::json;

use super::super::problem::Problem;
use super::super::words::Fields;
use super::super::{Shared, State};
use super::{Failure, own_status, success};
use crate::client::Table;
use crate::model::{Key, ServerId};

type Members = BTreeSet<ServerId>;

async fn table(shared: &Arc<Shared>) -> Result<Arc<Table>, Failure> {
    Ok(shared.client.table().await.map_err(|error| Problem::of_read(&error))?)
}

fn set(replicas: &[ServerId]) -> Members {
    replicas.iter().copied().collect()
}

fn partitions(table: &Table) -> Vec<Members> {
    let mut partitions: Vec<Members> = Vec::new();
    for range in &table.view().ranges {
        let members = set(&range.replicas);
        if !partitions.contains(&members) {
            partitions.push(members);
        }
    }
    partitions
}

fn number(partitions: &[Members], members: &Members) -> usize {
    partitions.iter().position(|partition| partition == members).unwrap_or_default()
}

/// The partition of a key.
pub(super) async fn of(shared: &Arc<Shared>, key: &Key) -> Result<usize, Failure> {
    let table = table(shared).await?;
    Ok(number(&partitions(&table), &set(table.replicas(key))))
}

/// `GET /kvs/get_partition_id`.
pub(super) async fn own(Extract(shared): State) -> Result<Response, Failure> {
    let table = table(&shared).await?;
    let me = shared.settings.server;
    let owned = table.view().ranges.iter().find(|range| range.replicas.first() == Some(&me));
    let members = owned.map(|range| set(&range.replicas)).unwrap_or_default();
    let id = number(&partitions(&table), &members);
    Ok(success(StatusCode::OK, json!({"partition_id": id})))
}

/// `GET /kvs/get_all_partition_ids`.
pub(super) async fn all(Extract(shared): State) -> Result<Response, Failure> {
    let count = partitions(&*table(&shared).await?).len();
    let ids: Vec<usize> = (0..count).collect();
    Ok(success(StatusCode::OK, json!({"partition_id_list": ids})))
}

/// `GET /kvs/get_partition_members`.
pub(super) async fn members(Extract(shared): State, uri: Uri) -> Result<Response, Failure> {
    let partitions = partitions(&*table(&shared).await?);
    let fields = Fields::of(&uri)?;
    let bad = |status, text: String| Failure(status, text);
    let text = fields.text("partition_id")?.unwrap_or_default();
    let id: usize = text.parse().map_err(|_| {
        bad(
            StatusCode::BAD_REQUEST,
            format!("partition_id is '{}', no number", text.escape_debug()),
        )
    })?;
    let members = partitions
        .get(id)
        .ok_or_else(|| bad(StatusCode::NOT_FOUND, format!("there is no partition {id}")))?;
    let address = |server: &ServerId| {
        let member = shared.settings.members.iter().find(|member| member.server == *server)?;
        Some(member.http.clone().unwrap_or_else(|| member.address.clone()))
    };
    let members: Vec<String> = members.iter().filter_map(address).collect();
    Ok(success(StatusCode::OK, json!({"partition_members": members})))
}

/// `GET /kvs/get_number_of_keys`: those with a value, on this server.
pub(super) async fn count(Extract(shared): State) -> Result<Response, Failure> {
    let status = own_status(&shared).await?;
    Ok(success(StatusCode::OK, json!({"count": status.keys.saturating_sub(status.tombstones)})))
}

/// `PUT /kvs/view_update`: has its place, and comes with moving ranges.
pub(super) async fn view_update() -> Failure {
    Failure(
        StatusCode::NOT_IMPLEMENTED,
        "servers cannot be added or removed while the cluster runs yet: moving data comes with a later \
         version; for now start a new cluster with the new VIEW and import the data"
            .to_owned(),
    )
}
