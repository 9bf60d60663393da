// Package router turns a statement text into a plan: what it is, which nodes
// may run it, and what it leaves behind. Planning is pure (no I/O, no clock);
// the plan cache, keyed by exact and by normalised text and bounded in bytes,
// sits beside it. Epoch and health are no part of a plan.
package router
