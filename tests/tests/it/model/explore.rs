//! Breadth first through everything that can happen.

use std::collections::HashMap;
use std::hash::Hash;

/// One thing that can happen in a state.
pub(super) struct Step<S, A, B> {
    /// What happens.
    pub(super) action: A,
    /// The state afterwards.
    pub(super) state: S,
    /// The rule that it breaks, if it does.
    pub(super) broken: Option<B>,
}

/// What an exploration has found.
pub(super) struct Explored<A, B> {
    /// Distinct states.
    pub(super) states: usize,
    /// Steps between them.
    pub(super) steps: usize,
    /// The most steps that a state needs to be reached.
    pub(super) depth: usize,
    /// The first rule that was broken, after one of the shortest ways there:
    /// exploration ends with it.
    pub(super) broken: Option<(B, Vec<A>)>,
    /// A shortest way into a state from which no end can be reached any more.
    pub(super) trapped: Option<Vec<A>>,
}

/// A state's number, in the order of discovery.
type Number = u32;

/// Every state found, and the ways between them.
struct Graph<S, A> {
    /// As it was found first, so that ways tell one story.
    states: Vec<S>,
    /// By form.
    numbers: HashMap<S, Number>,
    /// Where each state was found first, and by what; the first one is its own.
    found: Vec<(Number, Option<A>)>,
    steps: Vec<(Number, Number)>,
}

/// Explores what `steps` says from `first` on. States with one `form` are one:
/// they differ by names alone. Forms are compared whole, not by a hash, so no
/// state is taken for another.
pub(super) fn explore<S: Copy + Eq + Hash, A: Copy, B>(
    first: S,
    mut form: impl FnMut(&S) -> S,
    mut steps: impl FnMut(&S) -> Vec<Step<S, A, B>>,
    is_end: impl Fn(&S) -> bool,
) -> Explored<A, B> {
    let mut graph = Graph {
        states: vec![first],
        numbers: HashMap::from([(form(&first), 0)]),
        found: vec![(0, None)],
        steps: Vec::new(),
    };
    let mut at = 0;
    while let Some(state) = graph.states.get(at) {
        for step in steps(state) {
            if let Some(rule) = step.broken {
                let mut way = graph.way_to(at);
                way.push(step.action);
                return graph.explored(Some((rule, way)), None);
            }
            graph.add(at as Number, step.action, step.state, form(&step.state));
        }
        at += 1;
    }
    let trapped = graph.trapped(is_end).map(|state| graph.way_to(state));
    graph.explored(None, trapped)
}

impl<S: Copy + Eq + Hash, A: Copy> Graph<S, A> {
    fn add(&mut self, from: Number, action: A, state: S, form: S) {
        let next = self.states.len() as Number;
        let to = *self.numbers.entry(form).or_insert(next);
        if to == next {
            self.states.push(state);
            self.found.push((from, Some(action)));
        }
        self.steps.push((from, to));
    }

    /// What leads to the state.
    fn way_to(&self, state: usize) -> Vec<A> {
        let mut way = Vec::new();
        let mut at = state;
        while let (from, Some(action)) = self.found[at] {
            way.push(action);
            at = from as usize;
        }
        way.reverse();
        way
    }

    /// The first state from which no end can be reached: backwards from all ends.
    fn trapped(&self, is_end: impl Fn(&S) -> bool) -> Option<usize> {
        let mut begins = vec![0_usize; self.states.len() + 1];
        for (_, to) in &self.steps {
            begins[*to as usize + 1] += 1;
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        let mut free = begins.clone();
        let mut sources = vec![0; self.steps.len()];
        for (from, to) in &self.steps {
            sources[free[*to as usize]] = *from as usize;
            free[*to as usize] += 1;
        }
        let mut leads: Vec<bool> = self.states.iter().map(is_end).collect();
        let mut open: Vec<usize> = (0..leads.len()).filter(|at| leads[*at]).collect();
        while let Some(at) = open.pop() {
            for from in &sources[begins[at]..begins[at + 1]] {
                if !std::mem::replace(&mut leads[*from], true) {
                    open.push(*from);
                }
            }
        }
        leads.iter().position(|leads| !leads)
    }

    fn explored<B>(&self, broken: Option<(B, Vec<A>)>, trapped: Option<Vec<A>>) -> Explored<A, B> {
        Explored {
            states: self.states.len(),
            steps: self.steps.len(),
            depth: self.way_to(self.states.len() - 1).len(),
            broken,
            trapped,
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// Counts up by one or by three; below a bound.
    fn count(state: u32, bound: u32) -> Vec<Step<u32, u32, &'static str>> {
        let step = |by| Step {
            action: by,
            state: state + by,
            broken: (state + by == 12).then_some("twelve"),
        };
        let all = [1, 3].map(step);
        all.into_iter().filter(|step| step.state <= bound).collect()
    }

    #[test]
    fn every_state_is_found_once() {
        let found = explore(
            0,
            |state| *state,
            |state| count(*state, 10),
            |state| *state == 10,
        );
        assert_eq!((found.states, found.steps), (11, 10 + 8));
        assert!(found.broken.is_none() && found.trapped.is_none());
        // 3 + 3 + 3 + 1, or 3 + 3 + 1 + 1 for 8.
        assert_eq!(found.depth, 4);
    }

    #[test]
    fn the_first_broken_rule_comes_with_a_shortest_way() {
        let found = explore(0, |state| *state, |state| count(*state, 20), |_| true);
        assert_eq!(found.broken, Some(("twelve", vec![3; 4])));
    }

    #[test]
    fn states_of_one_form_are_one() {
        // Odd and even take turns, but for the end.
        let form = |state: &u32| if *state < 10 { state % 2 } else { 10 };
        let found = explore(0, form, |state| count(*state, 10), |_| true);
        assert_eq!(found.states, 2);
    }

    #[test]
    fn a_state_that_leads_to_no_end_is_found() {
        let found = explore(
            0,
            |state| *state,
            |state| count(*state, 5),
            |state| *state == 4,
        );
        assert_eq!(found.trapped, Some(vec![1, 1, 3]));
    }
}
