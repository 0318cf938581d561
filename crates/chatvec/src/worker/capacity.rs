//! What a worker may take on: tasks at once, and the memory that they use.
//!
//! Memory is granted before a task is acquired, when its size is not known yet:
//! as much as the tasks before it took. When the task has come its grant is
//! made to fit. The sum of all grants never exceeds the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is granted.
const UNIT_BYTES: u64 = 1 << 20;

/// The slots and the memory of a worker.
#[derive(Debug)]
pub(super) struct Capacity {
    slots: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    /// All memory, in units.
    budget: u32,
    /// What the next task is expected to take, in units.
    expected: AtomicU32,
}

/// One slot and some memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Grant {
    slot: OwnedSemaphorePermit,
    memory: OwnedSemaphorePermit,
}

impl Capacity {
    /// Tasks may take `memory_bytes` in all; the first is expected to take
    /// `expected_bytes`.
    pub(super) fn new(slots: u32, memory_bytes: u64, expected_bytes: u64) -> Self {
        let budget = u32::try_from(memory_bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        Self {
            slots: Arc::new(Semaphore::new(slots as usize)),
            memory: Arc::new(Semaphore::new(budget as usize)),
            budget,
            expected: AtomicU32::new(units(expected_bytes).min(budget)),
        }
    }

    /// Room for a task of the expected size, as soon as there is any.
    pub(super) async fn grant(&self) -> Grant {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let expected = self.expected.load(Ordering::Relaxed);
        let memory = Arc::clone(&self.memory).acquire_many_owned(expected).await;
        Grant {
            slot: slot.expect("the semaphore is never closed"),
            memory: memory.expect("the semaphore is never closed"),
        }
    }

    /// The same if there is room right now.
    pub(super) fn try_grant(&self) -> Option<Grant> {
        let expected = self.expected.load(Ordering::Relaxed);
        Some(Grant {
            slot: Arc::clone(&self.slots).try_acquire_owned().ok()?,
            memory: Arc::clone(&self.memory)
                .try_acquire_many_owned(expected)
                .ok()?,
        })
    }

    /// Tasks of this size have come: others like them are expected.
    pub(super) fn expect(&self, bytes: u64) {
        self.expected
            .store(units(bytes).min(self.budget), Ordering::Relaxed);
    }

    /// Makes a grant fit a task, and waits for memory where it is too small.
    /// `None` if all of the budget is less than the task takes.
    pub(super) async fn fit(&self, mut grant: Grant, bytes: u64) -> Option<Grant> {
        let needed = units(bytes);
        if needed > self.budget {
            return None;
        }
        let granted = u32::try_from(grant.memory.num_permits())
            .expect("permits are acquired in numbers of this type");
        if let Some(surplus) = granted.checked_sub(needed) {
            drop(grant.memory.split(surplus as usize));
            return Some(grant);
        }
        // Given back first: two tasks that each kept some and waited for more
        // would wait for each other.
        drop(grant.memory);
        let memory = Arc::clone(&self.memory).acquire_many_owned(needed).await;
        Some(Grant {
            slot: grant.slot,
            memory: memory.expect("the semaphore is never closed"),
        })
    }
}

impl Grant {
    /// The memory is free again, and the slot is not yet.
    pub(super) fn release_memory(self) -> OwnedSemaphorePermit {
        self.slot
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn grants_end_where_either_slots_or_memory_end() {
        let few_slots = Capacity::new(2, 100 * MIB, 10 * MIB);
        let _first = few_slots.grant().await;
        let second = few_slots.try_grant();
        assert!(second.is_some() && few_slots.try_grant().is_none());
        drop(second);
        assert!(few_slots.try_grant().is_some());

        let little_memory = Capacity::new(10, 25 * MIB, 10 * MIB);
        let _first = little_memory.grant().await;
        let _second = little_memory.grant().await;
        assert!(little_memory.try_grant().is_none());
    }

    #[tokio::test]
    async fn a_grant_that_is_too_large_gives_back_and_one_too_small_waits() {
        let capacity = Capacity::new(10, 30 * MIB, 20 * MIB);
        let large = capacity.grant().await;
        let large = capacity.fit(large, 12 * MIB - 5).await.unwrap();
        assert_eq!(capacity.memory.available_permits(), 18);
        capacity.expect(5 * MIB);
        let small = capacity.grant().await;
        let mut fitting = std::pin::pin!(capacity.fit(small, 25 * MIB));
        assert!(
            futures_util::poll!(fitting.as_mut()).is_pending(),
            "18 MiB are free"
        );
        drop(large);
        let fitted = fitting.await.unwrap();
        assert_eq!(capacity.memory.available_permits(), 5);
        drop(fitted.release_memory());
        assert_eq!(capacity.memory.available_permits(), 30);
        assert_eq!(capacity.slots.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_task_beyond_the_budget_never_fits() {
        let capacity = Capacity::new(1, 30 * MIB, 200 * MIB);
        // The expectation is cut to what can ever be granted.
        let grant = capacity.grant().await;
        assert!(capacity.fit(grant, 30 * MIB + 1).await.is_none());
        assert_eq!(capacity.memory.available_permits(), 30);
        assert_eq!(capacity.slots.available_permits(), 1);
    }
}
