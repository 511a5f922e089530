//! Aggregates of nodes that answer from a script.

mod support;

use anabranch_client::{
    AppendError, Client, Comparison, DefineError, Doubt, Operation, ReadError, event,
};
use anabranch_proto::convert::{invalid, refused};
use anabranch_proto::v1;
use anabranch_proto::v1::condition;
use anabranch_proto::v1::refusal::{self, Reason};
use serde_json::json;
use support::{Answer, End, Node, SHORT, aggregate, token};
use tonic::{Code, Status};

fn client(nodes: &[&Node]) -> Client {
    let addresses = nodes.iter().map(|node| node.address.clone());
    Client::builder().region("us", addresses).seed(1).build().unwrap()
}
fn building() -> Status {
    Status::unavailable("aggregates of category \"stock\" are being built: 3 of 9")
}
fn unknown_category() -> Status {
    Status::not_found("there is no definition of aggregates of category \"stock\"")
}

#[tokio::test]
async fn operations_are_prepared_once_and_appended_once_whatever_goes_unanswered() {
    let node = Node::start().await;
    let client = client(&[&node]);
    node.script.lock().aggregates.prepares.push_back(Status::unavailable("gone"));
    node.on_append(Answer::Refuse(Status::unavailable("gone")));
    let operations = [Operation::increment("n", 5), Operation::add("tags", "x")];
    let appended = client.aggregate("cart-1").operate(operations).await.unwrap();
    assert!(appended.repeated);
    assert_eq!(client.session().token(), token(&[("us", 1)]), "the session has seen the write");

    let sent = node.appended();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].producer, sent[1].producer, "the same triple");
    assert_eq!(sent[0].events, sent[1].events, "the same event");
    let event = &sent[0].events[0];
    assert_eq!((&*event.stream, &*event.r#type), ("cart-1", "$operations"));
    let wanted = r#"{"by":5,"do":"increment","field":"n"},{"do":"add","field":"tags","value":"x"}"#;
    assert_eq!(event.payload, wanted);
    assert_eq!(node.script.lock().aggregates.prepared.len(), 2, "the first was not answered");
}

#[tokio::test]
async fn what_was_seen_goes_along_when_operations_are_prepared() {
    let node = Node::start().await;
    let client = client(&[&node]);
    client.append("cart-1", event("Happened")).await.unwrap();
    let seen = token(&[("eu", 3)]);
    client.set("cart-1", "tags").key("k").remove("x").observed(seen.clone()).await.unwrap();
    let prepared = node.script.lock().aggregates.prepared[0].clone();
    assert_eq!(prepared.session_token, token(&[("us", 1)]));
    assert_eq!(prepared.observed, seen);
    assert_eq!(prepared.operations, [r#"{"do":"remove","field":"tags","key":"k","value":"x"}"#]);
}

#[tokio::test]
async fn operations_that_are_refused_were_not_written_unless_they_repeat_others() {
    let node = Node::start().await;
    let client = client(&[&node]);
    let counter = client.counter("stock-1", "n");
    let refuse = |status| node.script.lock().aggregates.prepares.push_back(status);

    refuse(invalid("operations[0]", "field \"n\" is not in the definition", 0, 0));
    let error = counter.add(1).await.unwrap_err();
    assert!(error.is_refused());
    let AppendError::Invalid { field, .. } = &error else { panic!("{error}") };
    assert_eq!(field, "operations[0]");

    refuse(unknown_category());
    let error = counter.add(1).await.unwrap_err();
    assert!(error.is_refused());
    let AppendError::NoDefinition { category } = &error else { panic!("{error}") };
    assert_eq!(category, "stock");
    assert!(node.appended().is_empty());

    node.on_append(Answer::Hang);
    let error = counter.add(1).timeout(SHORT).await.unwrap_err();
    let AppendError::Unknown { ticket, .. } = error else { panic!("{error}") };
    refuse(unknown_category());
    let error = counter.add(1).retry_of(ticket.clone()).await.unwrap_err();
    let AppendError::Unknown { doubt: Doubt::RefusedLater { .. }, .. } = error else {
        panic!("the first attempt may have been written: {error}");
    };
    assert!(counter.add(1).retry_of(ticket).await.unwrap().repeated);
}

#[tokio::test]
async fn a_node_whose_aggregates_are_being_built_is_left_for_another() {
    let (fresh, old) = (Node::start().await, Node::start().await);
    for _ in 0..2 {
        fresh.script.lock().aggregates.gets.push_back(Err(building()));
        old.script.lock().aggregates.gets.push_back(Ok(aggregate(json!({ "n": 7 }), 4)));
    }
    let client = client(&[&fresh, &old]);
    client.session().merge(&token(&[("eu", 2)])).unwrap();
    let aggregate = client.aggregate("stock-1").get().await.unwrap();
    assert_eq!(aggregate.value, *json!({ "n": 7 }).as_object().unwrap());
    assert_eq!((aggregate.version, aggregate.events, aggregate.bad_events), (1, 1, 0));
    let seen = token(&[("eu", 2), ("us", 4)]);
    assert_eq!(client.session().token(), seen, "the session has seen it");
    assert_eq!(client.counter("stock-1", "n").value().await.unwrap(), 7);
    let asked = |node: &Node| node.script.lock().aggregates.got.clone();
    assert_eq!(asked(&old).len(), 2);
    assert_eq!(asked(&old)[0].session_token, token(&[("eu", 2)]));
    assert_eq!(asked(&old)[1].session_token, seen);
    assert!(asked(&fresh).len() <= 1, "who answered is asked first the next time");
}

#[tokio::test]
async fn aggregates_that_are_built_for_too_long_are_said_to_be() {
    let node = Node::start().await;
    node.script.lock().aggregates.gets.extend((0..100).map(|_| Err(building())));
    let client = Client::builder().region("us", [node.address.clone()]).timeout(SHORT);
    let error = client.build().unwrap().aggregate("stock-1").get().await.unwrap_err();
    assert!(error.retryable());
    let ReadError::Unavailable { last, .. } = &error else { panic!("{error}") };
    assert!(last.message().contains("being built: 3 of 9"), "{error}");
}

#[tokio::test]
async fn errors_of_reads_name_what_is_wrong() {
    let node = Node::start().await;
    let client = client(&[&node]);
    let answer = |answer| node.script.lock().aggregates.gets.push_back(answer);

    answer(Err(unknown_category()));
    let error = client.aggregate("stock-1").get().await.unwrap_err();
    let ReadError::NoDefinition { category } = &error else { panic!("{error}") };
    assert_eq!(category, "stock");

    answer(Err(invalid("session_token", "is no token", 0, 0)));
    let error = client.aggregate("stock-1").get().await.unwrap_err();
    assert_eq!(error.to_string(), "session_token: is no token");

    let held = json!({ "n": 1, "tags": ["a"] });
    answer(Ok(aggregate(held.clone(), 1)));
    let error = client.counter("stock-1", "m").value().await.unwrap_err();
    assert_eq!(error.to_string(), "m: is no field of stock-1, which has n, tags");
    answer(Ok(aggregate(held.clone(), 1)));
    let error = client.set("stock-1", "n").members().await.unwrap_err();
    assert_eq!(error.to_string(), "n: is no set: it holds a number");
    answer(Ok(aggregate(held.clone(), 1)));
    let error = client.list("stock-1", "tags").values().await.unwrap_err();
    assert_eq!(error.to_string(), "tags: is no list: it holds text");
    answer(Ok(aggregate(held, 1)));
    let error = client.counter("stock-1", "n").key("k").value().await.unwrap_err();
    assert_eq!(error.to_string(), "n: is no map: it holds a number");

    let mut damaged = aggregate(json!({}), 1);
    damaged.value = "{".into();
    answer(Ok(damaged));
    let error = client.aggregate("stock-1").get().await.unwrap_err();
    assert!(matches!(error, ReadError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn fields_are_read_as_what_they_are() {
    let node = Node::start().await;
    let client = client(&[&node]);
    let id = "1@a.0";
    let value = json!({
        "n": 5, "huge": "170141183460469231731687303715884105727",
        "by": { "ada": 2 }, "tags": ["x"], "up": true, "last": { "a": [1] },
        "todo": [{ "id": id, "value": "milk" }],
    });
    let gets = (0..20).map(|_| Ok(aggregate(value.clone(), 1)));
    node.script.lock().aggregates.gets.extend(gets);
    let stream = "stock-1";
    assert_eq!(client.counter(stream, "n").value().await.unwrap(), 5);
    assert_eq!(client.counter(stream, "huge").value().await.unwrap(), i128::MAX);
    assert_eq!(client.counter(stream, "by").key("ada").value().await.unwrap(), 2);
    assert_eq!(client.counter(stream, "by").key("bob").value().await.unwrap(), 0);
    assert_eq!(client.map(stream, "by").entries().await.unwrap().len(), 1);
    assert_eq!(client.set(stream, "tags").members().await.unwrap(), ["x"]);
    assert!(client.flag(stream, "up").is_up().await.unwrap());
    assert_eq!(client.register(stream, "last").value().await.unwrap(), json!({ "a": [1] }));
    assert_eq!(client.list(stream, "todo").values().await.unwrap(), ["milk"]);
    assert_eq!(client.list(stream, "todo").elements().await.unwrap()[0].id, id);
}

#[tokio::test]
async fn ordered_fields_have_a_settled_and_a_tentative_value() {
    let node = Node::start().await;
    let client = client(&[&node]);
    let counts = v1::OrderedCounts { settled_events: 2, tentative_events: 3, ..Default::default() };
    let with = |value| v1::Aggregate { ordered: Some(counts), ..aggregate(value, 3) };
    let both = json!({ "n": 5, "sum": { "settled": 7, "tentative": null } });
    let answers = [both.clone(), both.clone(), json!({ "sum": { "settled": 7 } }), both];
    node.script.lock().aggregates.gets.extend(answers.map(|value| Ok(with(value))));
    let value = client.ordered("stock-1", "sum").value().await.unwrap();
    assert_eq!((value.settled, value.tentative), (json!(7), json!(null)));
    let error = client.ordered("stock-1", "n").value().await.unwrap_err();
    assert!(error.to_string().contains("is not ordered"), "{error}");
    assert_eq!(client.ordered("stock-1", "sum").settled().await.unwrap(), 7);
    let read = client.aggregate("stock-1").get().await.unwrap().ordered.unwrap();
    assert_eq!((read.settled_events, read.tentative_events), (2, 3));
}

#[tokio::test]
async fn a_watch_asks_again_when_it_breaks_and_tells_each_change_once() {
    let node = Node::start().await;
    let client = client(&[&node]);
    let at = |n: u64| aggregate(json!({ "n": n }), n);
    let gone = || End::Broken(Status::unavailable("gone"));
    let behind = {
        let missing = Some((&support::cut(&[("us", 2)])).into());
        let behind = Reason::NotCaughtUp(refusal::NotCaughtUp { missing, waited_ms: 1 });
        End::Broken(refused(Code::Unavailable, "behind", behind))
    };
    node.script.lock().aggregates.watches.extend([
        (vec![at(1), at(2)], gone()),
        (vec![], behind),
        (vec![at(2), at(3)], End::Clean),
        (vec![at(3)], gone()),
        (vec![at(3), at(4)], End::Open),
    ]);
    let mut watch = client.aggregate("stock-1").watch();
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(watch.next().await.unwrap().unwrap().value["n"].as_u64().unwrap());
    }
    assert_eq!(told, [1, 2, 3, 4]);
    let watched = node.script.lock().aggregates.watched.clone();
    let waits_for: Vec<_> = watched.into_iter().map(|watch| watch.session_token).collect();
    let seen = [2, 2, 3, 3].map(|seq| token(&[("us", seq)]));
    assert_eq!(waits_for[1..], seen, "no later node may go back");
    assert!(tokio::time::timeout(SHORT, watch.next()).await.is_err(), "nothing has changed");
}

#[tokio::test]
async fn a_watch_of_a_category_without_a_definition_ends_with_that() {
    let node = Node::start().await;
    let end = (vec![], End::Broken(unknown_category()));
    node.script.lock().aggregates.watches.push_back(end);
    let mut watch = client(&[&node]).aggregate("stock-1").watch();
    let error = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ReadError::NoDefinition { .. }), "{error}");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_query_goes_on_from_page_to_page_also_over_empty_ones() {
    let node = Node::start().await;
    let named = |name: &str| v1::Aggregate { stream: name.into(), ..aggregate(json!({}), 1) };
    let page = |streams: &[&str], next: &str| v1::QueryResponse {
        aggregates: streams.iter().map(|name| named(name)).collect(),
        next: next.into(),
        session_token: token(&[("us", 7)]),
    };
    node.script.lock().aggregates.queries.extend([
        page(&["stock-a", "stock-b"], "stock-b"),
        page(&[], "stock-x"),
        page(&["stock-y"], ""),
    ]);
    let client = client(&[&node]);
    let query = client.query("stock").where_("lines", Comparison::Greater, 100).limit(2);
    let mut all = query.all();
    let mut streams = Vec::new();
    while let Some(aggregate) = all.next().await {
        streams.push(aggregate.unwrap().stream);
    }
    assert_eq!(streams, ["stock-a", "stock-b", "stock-y"]);
    let queried = node.script.lock().aggregates.queried.clone();
    let after: Vec<_> = queried.iter().map(|query| &*query.after).collect();
    assert_eq!(after, ["", "stock-b", "stock-x"]);
    let condition = &queried[2].conditions[0];
    assert_eq!((&*condition.field, &*condition.value), ("lines", &b"100"[..]));
    assert_eq!(condition.comparison(), condition::Comparison::Greater);
    assert_eq!((queried[0].limit, &*queried[0].category), (2, "stock"));
    assert!(queried[0].session_token.is_empty());
    assert_eq!(queried[1].session_token, token(&[("us", 7)]));
}

#[tokio::test]
async fn a_definition_is_declared_again_until_it_is_answered_and_counts_once() {
    let node = Node::start().await;
    let client = client(&[&node]);
    node.script.lock().aggregates.defines.push_back(Status::unavailable("gone"));
    let defined = client.define("{}").await.unwrap();
    assert_eq!((&*defined.category, defined.version, defined.repeated), ("stock", 1, true));
    assert_eq!(client.session().token(), token(&[("us", 1)]), "whoever reads next knows it");

    let taken = invalid("definition.version", "is 1, and version 2 of stock is there", 2, 1);
    node.script.lock().aggregates.defines.push_back(taken);
    let error = client.define("{}").await.unwrap_err();
    let DefineError::Refused(ReadError::Invalid { field, .. }) = &error else { panic!("{error}") };
    assert_eq!(field, "definition.version");

    let standing = client.definitions("stock").await.unwrap().remove(0);
    assert_eq!((&*standing.category, standing.version, standing.serving), ("stock", 2, false));
    assert_eq!((standing.position, standing.of, standing.bad_events), (5, 9, 1));
    assert_eq!(standing.last_bad_event.as_deref(), Some("us/1: no"));
}

#[tokio::test]
async fn a_definition_that_nobody_answered_for_may_be_there_and_one_that_nobody_took_is_not() {
    let node = Node::start().await;
    let client = Client::builder().region("us", [node.address.clone()]).timeout(SHORT);
    let client = client.build().unwrap();
    let refuse = |status: Status| {
        node.script.lock().aggregates.defines = (0..100).map(|_| status.clone()).collect();
    };
    refuse(Status::unavailable("gone"));
    let error = client.define("{}").await.unwrap_err();
    assert!(matches!(error, DefineError::Unknown(_)), "{error}");
    let no_leader = Reason::NotLeader(refusal::NotLeader::default());
    refuse(refused(Code::Unavailable, "nobody leads", no_leader));
    let error = client.define("{}").await.unwrap_err();
    assert!(matches!(error, DefineError::Refused(_)), "{error}");
}
