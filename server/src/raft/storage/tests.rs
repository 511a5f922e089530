use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anabranch_log::disk::MemoryDisk;
use anabranch_log::{LogOptions, Writer};
use futures_util::{FutureExt, TryStreamExt};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;

use super::super::types::{Membership, Node};
use super::*;

fn open(disk: &MemoryDisk) -> (Storage, Writer) {
    open_with(disk, LogOptions::new([1; 16]))
}
fn open_with(disk: &MemoryDisk, options: LogOptions) -> (Storage, Writer) {
    let disk = Arc::new(disk.clone());
    let (log, writer, _) = Log::open(disk, Path::new("shard"), options).unwrap();
    (Storage::new(log, Fatal::new()), writer)
}

fn entry(index: u64, payload: Payload) -> Entry {
    Entry { log_id: LogId::new(LeaderId { term: 2, node_id: 3 }, index), payload }
}
fn command(index: u64) -> Entry {
    entry(index, Payload::Normal(Proposal(vec![index as u8; 100].into())))
}
fn members() -> Payload {
    let node = Node { raft_address: "a:1".into(), api_address: "b:1".into() };
    let nodes = BTreeMap::from([(3, node)]);
    Payload::Membership(Membership::new(vec![BTreeSet::from([3])], nodes).unwrap())
}
fn text(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| format!("{entry:?}")).collect()
}

type Flushed = OneshotReceiverOf<TypeConfig, io::Result<()>>;

async fn append(storage: &mut Storage, entries: Vec<Entry>) -> Flushed {
    let (sender, flushed) = TypeConfig::oneshot();
    storage.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed
}

#[tokio::test]
async fn an_append_is_readable_at_once_and_reported_after_the_sync() {
    let disk = MemoryDisk::new(1);
    let (mut storage, mut writer) = open(&disk);
    let entries = vec![entry(0, members()), entry(1, Payload::Blank), command(2)];
    let mut flushed = append(&mut storage, entries.clone()).await;
    let mut reader = storage.get_log_reader().await;
    assert_eq!(text(&reader.try_get_log_entries(0..).await.unwrap()), text(&entries));
    assert!(writer.write_pending());
    assert!((&mut flushed).now_or_never().is_none(), "written, but not synced");
    writer.sync_written();
    assert!(matches!(flushed.now_or_never(), Some(Ok(Ok(())))));

    disk.crash();
    let (mut storage, _writer) = open(&disk);
    let state = storage.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(entries[2].log_id));
    let mut reader = storage.get_log_reader().await;
    assert_eq!(text(&reader.try_get_log_entries(..).await.unwrap()), text(&entries));
}

#[tokio::test]
async fn votes_and_cuts_are_durable_before_they_return() {
    let disk = MemoryDisk::new(2);
    let (mut storage, mut writer) = open(&disk);
    let vote = Vote { leader_id: LeaderId { term: 5, node_id: 3 }, committed: false };
    {
        let mut saving = std::pin::pin!(storage.save_vote(&vote));
        assert!(saving.as_mut().now_or_never().is_none(), "not synced");
        while writer.step() {}
        saving.now_or_never().expect("synced").unwrap();
    }
    drop(append(&mut storage, (0..5).map(command).collect()).await);
    {
        let last = Some(command(2).log_id);
        let mut cutting = std::pin::pin!(storage.truncate_after(last));
        assert!(cutting.as_mut().now_or_never().is_none(), "not synced");
        while writer.step() {}
        cutting.now_or_never().expect("synced").unwrap();
    }
    disk.crash();
    let (mut storage, _writer) = open(&disk);
    let mut reader = storage.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    assert_eq!(reader.try_get_log_entries(..).await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_commit_mark_comes_back_once_its_entry_is_durable() {
    let disk = MemoryDisk::new(3);
    let (mut storage, mut writer) = open(&disk);
    assert_eq!(storage.read_committed().await.unwrap(), None);
    drop(append(&mut storage, (0..5).map(command).collect()).await);
    storage.save_committed(Some(command(3).log_id)).await.unwrap();
    while writer.step() {}
    drop(append(&mut storage, vec![command(5)]).await);
    while writer.step() {}
    disk.crash();
    let (mut storage, _writer) = open(&disk);
    let committed = storage.read_committed().await.unwrap();
    assert_eq!(committed, Some(command(3).log_id));
}

#[tokio::test]
async fn long_ranges_are_read_whole_piece_by_piece_and_messages_are_bounded() {
    let disk = MemoryDisk::new(4);
    let (mut storage, mut writer) = open(&disk);
    let large = |index| entry(index, Payload::Normal(Proposal(vec![7; 1024 * 1024].into())));
    drop(append(&mut storage, (0..10).map(large).collect()).await);
    while writer.step() {}
    let mut reader = storage.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(2..9).await.unwrap().len(), 7);
    let streamed: Vec<_> = reader.entries_stream(1..=8).await.try_collect().await.unwrap();
    let indexes: Vec<_> = streamed.iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, (1..=8).collect::<Vec<_>>());
    let bounded = reader.limited_get_log_entries(2, 9).await.unwrap();
    assert!((1..=4).contains(&bounded.len()), "{} of 1 MiB", bounded.len());
    assert_eq!(bounded[0].log_id.index, 2);
    assert!(reader.try_get_log_entries(10..20).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_sync_is_an_error_of_the_append_and_the_shards_end() {
    let disk = MemoryDisk::new(5);
    let (mut storage, mut writer) = open(&disk);
    drop(append(&mut storage, vec![command(0)]).await);
    while writer.step() {}
    disk.fail_sync(1);
    let flushed = append(&mut storage, vec![command(1)]).await;
    while writer.step() {}
    assert!(matches!(flushed.now_or_never(), Some(Ok(Err(_)))));
    let reason = storage.reader.fatal.reason().expect("it says why");
    assert!(reason.starts_with("cannot append to the log"), "{reason}");
}

#[tokio::test]
async fn on_a_full_disk_appends_wait_for_their_turn_and_are_no_end() {
    let disk = MemoryDisk::new(7);
    let options = LogOptions { queue_bytes: 200, reserve_bytes: 0, ..LogOptions::new([1; 16]) };
    let (mut storage, mut writer) = open_with(&disk, options);
    let log = storage.reader.log.clone();
    disk.set_capacity(Some(disk.used()));
    let first = append(&mut storage, vec![command(0)]).await;
    while writer.step() {}
    let second = append(&mut storage, vec![command(1)]).await;
    let third = {
        let mut appending = std::pin::pin!(append(&mut storage, vec![command(2)]));
        assert!(appending.as_mut().now_or_never().is_none(), "the queue is full");
        disk.set_capacity(None);
        log.restore_reserve();
        while writer.step() {}
        appending.now_or_never().expect("there is space")
    };
    while writer.step() {}
    for flushed in [first, second, third] {
        assert!(matches!(flushed.now_or_never(), Some(Ok(Ok(())))));
    }
    assert_eq!(storage.reader.fatal.reason(), None);
}

#[tokio::test]
async fn the_log_is_never_purged() {
    let (mut storage, mut writer) = open(&MemoryDisk::new(6));
    drop(append(&mut storage, vec![command(0)]).await);
    while writer.step() {}
    let refused = storage.purge(command(0).log_id).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    let mut reader = storage.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(..).await.unwrap().len(), 1);
}
