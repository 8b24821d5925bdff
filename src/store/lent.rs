//! A value that is lent out, and can be taken back at a moment when nobody has it.
//!
//! To borrow is to count it in the thread's own count ([`super::loans`]) and to look where the value is: no lock and
//! no locked addition. To take back is to put the value out of sight first and to look at the counts then: whoever
//! counted too late to be seen finds nothing. `tests/loom` tries every order of the two. Must not know what is lent.
#![allow(unsafe_code, reason = "the value's owner is a raw pointer")]

use super::loans::{self, AtomicPtr, Loans, Mutex, MutexGuard, Ordering};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

/// The value, or nothing.
pub struct Lent<T> {
    /// Of `Arc::into_raw`; null when nothing is here.
    value: AtomicPtr<T>,
    /// Held by who puts or takes.
    changing: Mutex<()>,
    owned: PhantomData<Arc<T>>,
}

/// The value, for the thread that borrowed it. To be kept briefly: meanwhile no value can be taken back.
pub struct Loan<'a, T> {
    value: &'a T,
    loans: &'static Loans,
    /// It is paid back by the thread that counted it.
    stays_here: PhantomData<*const ()>,
}

impl<T> Deref for Loan<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Drop for Loan<'_, T> {
    #[inline]
    fn drop(&mut self) {
        count(self.loans, u32::wrapping_sub);
    }
}

/// One loan more, or one fewer, of the calling thread. Release: what was done with the value came before.
#[inline]
fn count(loans: &Loans, change: fn(u32, u32) -> u32) {
    loans.0.store(change(loans.0.load(Ordering::Relaxed), 1), Ordering::Release);
}

impl<T> Default for Lent<T> {
    fn default() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()), changing: Mutex::new(()), owned: PhantomData }
    }
}

impl<T> Lent<T> {
    /// The value, if it is here.
    #[inline]
    pub fn get(&self) -> Option<Loan<'_, T>> {
        let loans = loans::mine();
        count(loans, u32::wrapping_add);
        loans::fence();
        // SAFETY: null, or a value that was here after this loan was counted: `take` lets none go before it finds no
        // loans at all.
        match unsafe { self.value.load(Ordering::Acquire).as_ref() } {
            Some(value) => Some(Loan { value, loans, stays_here: PhantomData }),
            None => {
                count(loans, u32::wrapping_sub);
                None
            }
        }
    }

    /// The value, to be kept for as long as one likes.
    pub fn owned(&self) -> Option<Arc<T>> {
        let loan = self.get()?;
        let value: *const T = loan.value;
        // SAFETY: `value` came from `Arc::into_raw`, and the loan keeps the count above zero; the new count is the new
        // owner's.
        Some(unsafe {
            Arc::increment_strong_count(value);
            Arc::from_raw(value)
        })
    }

    /// Puts a value here, unless there is one.
    pub fn put(&self, value: Arc<T>) {
        let _changing = self.changing();
        if self.value.load(Ordering::Relaxed).is_null() {
            self.value.store(Arc::into_raw(value).cast_mut(), Ordering::Release);
        }
    }

    /// Takes the value back, unless somebody has it, or has any value of the process on loan just now.
    pub fn take(&self) -> Option<Arc<T>> {
        let _changing = self.changing();
        let value = self.value.swap(ptr::null_mut(), Ordering::AcqRel);
        if value.is_null() {
            return None;
        }
        if loans::nobody() {
            // SAFETY: it came from `Arc::into_raw`, with a count that nobody took over; and nobody can have a reference
            // to it but as an owner: there were no loans, and who borrows now finds null.
            let taken = unsafe { Arc::from_raw(value) };
            if Arc::strong_count(&taken) == 1 {
                return Some(taken);
            }
            self.value.store(Arc::into_raw(taken).cast_mut(), Ordering::Release);
        } else {
            self.value.store(value, Ordering::Release);
        }
        None
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        let value = self.value.swap(ptr::null_mut(), Ordering::AcqRel);
        if !value.is_null() {
            // SAFETY: of `Arc::into_raw`; loans borrow from what is dropped here, so there are none.
            drop(unsafe { Arc::from_raw(value) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_is_lent_is_not_taken() {
        let lent = Lent::default();
        assert!(lent.get().is_none() && lent.take().is_none());
        lent.put(Arc::new("first"));
        lent.put(Arc::new("second"));
        let (one, other) = (lent.get().expect("there"), lent.get().expect("there"));
        drop(one);
        assert!(lent.take().is_none(), "there is another loan");
        assert_eq!(*other, "first");
        drop(other);
        let owned = lent.owned().expect("there");
        assert!(lent.take().is_none(), "it has another owner");
        drop(owned);
        // Other tests of this process may have loans for a moment.
        let taken = std::iter::repeat_with(|| lent.take()).find_map(|taken| taken).expect("in the end");
        assert_eq!((*taken, Arc::strong_count(&taken)), ("first", 1));
        assert!(lent.get().is_none() && lent.owned().is_none());
    }

    #[test]
    fn a_value_goes_with_its_place() {
        let (lent, value) = (Lent::default(), Arc::new(()));
        lent.put(Arc::clone(&value));
        drop(lent);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    /// Loans, ends of threads and takings, all at once; the sanitizer sees what a wrong order would touch.
    #[test]
    fn threads_come_and_go_while_values_are_taken() {
        let lent = Lent::default();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        thread::scope(|inner| drop(inner.spawn(|| (0..200).for_each(|_| check(&lent)))));
                    }
                });
            }
            for n in 0..500u64 {
                lent.put(Arc::new([n; 2]));
                drop(lent.take());
            }
        });
    }

    fn check(lent: &Lent<[u64; 2]>) {
        if let Some(loan) = lent.get() {
            assert_eq!(loan[0], loan[1]);
        }
        if let Some(owned) = lent.owned() {
            assert_eq!(owned[0], owned[1]);
        }
    }
}
