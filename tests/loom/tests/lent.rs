//! Every order in which one who borrows and one who takes back can meet.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use weir_tree::store::lent::Lent;

/// What loom complains of when it is looked at by one thread and changed by another.
struct Watched(UnsafeCell<u32>);

// SAFETY: loom's cell reports every access that another thread could see.
unsafe impl Sync for Watched {}

impl Watched {
    fn look(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }

    fn change(&self) {
        // SAFETY: as above.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }
}

/// The cell outlives the value, which only has it: what is checked is that nobody looks once it was taken.
fn lent() -> (Arc<Lent<Arc<Watched>>>, Arc<Watched>) {
    let (lent, watched) = (Arc::new(Lent::default()), Arc::new(Watched(UnsafeCell::new(1))));
    lent.put(std::sync::Arc::new(Arc::clone(&watched)));
    (lent, watched)
}

type Taken = Option<std::sync::Arc<Arc<Watched>>>;

/// One borrows, and another one takes back and changes what it got; gives that, what the borrower says, and the place.
fn meet<T: 'static>(borrow: impl FnOnce(&Lent<Arc<Watched>>) -> T + 'static) -> (Taken, T, Arc<Lent<Arc<Watched>>>) {
    let (lent, _watched) = lent();
    let borrower = {
        let lent = Arc::clone(&lent);
        thread::spawn(move || borrow(&lent))
    };
    let taken = lent.take();
    taken.iter().for_each(|taken| taken.change());
    (taken, borrower.join().expect("no panic"), lent)
}

#[test]
fn what_was_taken_is_nobody_elses() {
    loom::model(|| {
        let (taken, seen, lent) = meet(|lent| lent.get().map(|loan| loan.look()));
        assert!(seen.is_none_or(|seen| seen == 1));
        assert!(taken.is_some() != lent.get().is_some(), "it is here or there");
    });
}

#[test]
fn an_owner_is_found_or_finds_nothing() {
    loom::model(|| {
        let (taken, (owned, seen), _) = meet(|lent| {
            let owned = lent.owned();
            let seen = owned.as_ref().map(|owned| owned.look());
            (owned, seen)
        });
        assert!(seen.is_none_or(|seen| seen == 1));
        assert!(!(owned.is_some() && taken.is_some()), "it was taken although somebody owns it");
    });
}

#[test]
fn nested_loans_are_counted() {
    loom::model(|| {
        let (_, seen, _) = meet(|lent| {
            let outer = lent.get();
            drop(lent.get());
            outer.map(|loan| loan.look())
        });
        assert!(seen.is_none_or(|seen| seen == 1));
    });
}
