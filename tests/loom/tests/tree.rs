//! Every order in which a tree's owner and a reader can meet.

use loom::sync::Arc;
use loom::thread;
use weir_tree::profile::tree::{Counts, Elsewhere, Node, Outcome, Tree};
use weir_tree::site;

/// All orders with at most this many switches that nothing forces; more find nothing new and take hours.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

fn only_child(tree: &Tree) -> &Node {
    tree.nodes().find(|node| node.site.name == "a").expect("there")
}

fn tree_with_a_child() -> Arc<Box<Tree>> {
    let tree = Tree::new();
    tree.root().child(site!("a"), None).expect("room");
    Arc::new(tree)
}

fn read_beside(tree: &Arc<Box<Tree>>) -> thread::JoinHandle<Counts> {
    let tree = Arc::clone(tree);
    thread::spawn(move || only_child(&tree).read(|| 100))
}

#[test]
fn a_reading_is_of_one_moment() {
    model(|| {
        let tree = tree_with_a_child();
        let reader = read_beside(&tree);
        let node = only_child(&tree);
        node.enter(10);
        node.leave(13);
        node.enter(20);
        node.leave(23);
        let Counts { calls, polls, busy, wall, in_flight, .. } = reader.join().expect("read");
        // Before, inside or after the first or the second.
        let inside = if calls == 0 { 90 } else { 80 };
        assert_eq!((polls, in_flight <= 1), (calls, true));
        assert_eq!((busy, wall), (3 * calls + inside * in_flight, 3 * calls + inside * in_flight));
    });
}

#[test]
fn a_call_is_under_way_or_done_and_never_both() {
    model(|| {
        let tree = tree_with_a_child();
        let reader = read_beside(&tree);
        let node = only_child(&tree);
        node.begin(10, false);
        node.enter(10);
        node.leave_poll(35, 10, None, Outcome::Done);
        let counts = reader.join().expect("read");
        assert!(counts.calls + counts.in_flight <= 1);
        assert_eq!(counts.wall, if counts.calls == 1 { 25 } else { 90 * counts.in_flight });
        assert!(counts.busy <= counts.wall && counts.polls == counts.calls);
    });
}

#[test]
fn a_call_may_be_cancelled_while_the_owner_counts_others() {
    model(|| {
        let tree = tree_with_a_child();
        let node = only_child(&tree);
        node.begin(10, false);
        node.enter(10);
        node.leave_poll(12, 10, None, Outcome::Pending(0));
        let canceller = thread::spawn({
            let tree = Arc::clone(&tree);
            move || only_child(&tree).end_elsewhere(40, 10, Some(12), Elsewhere::Cancelled)
        });
        node.enter(20);
        node.leave(23);
        canceller.join().expect("cancelled");
        let counts = node.read(|| 100);
        assert_eq!((counts.calls, counts.cancelled, counts.in_flight), (1, 1, 0));
        assert_eq!((counts.busy, counts.wall, counts.waiting), (5, 33, 28));
    });
}

#[test]
fn a_node_is_whole_when_it_is_seen() {
    model(|| {
        let tree = tree_with_a_child();
        let reader = thread::spawn({
            let tree = Arc::clone(&tree);
            move || {
                for node in tree.nodes() {
                    let parent = node.parent().map(|parent| parent.site.name);
                    assert!(matches!(
                        (node.site.name, parent),
                        ("<root>", None) | ("a", Some("<root>")) | ("b", Some("a"))
                    ));
                }
            }
        });
        only_child(&tree).child(site!("b"), None).expect("room");
        reader.join().expect("read");
        assert_eq!(tree.nodes().count(), 3);
    });
}
