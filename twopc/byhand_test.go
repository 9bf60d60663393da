package twopc

import (
	"context"
	"errors"
	"testing"

	"shardproxy/wire"
)

// TestByHand ends parts in doubt as an operator would: what the deciding shard says holds,
// unless it is forced.
func TestByHand(t *testing.T) {
	f := newFleet(t, 2)
	r := f.closed(f.options())
	defer func() {
		for i := range r.sessions {
			r.drop(i)
		}
	}()
	ends := func(name string, commit, force bool, want string) {
		t.Helper()
		err := r.EndByHand(context.Background(), "op", name, commit, force)
		var said *wire.Error
		if got := ""; errors.As(err, &said) {
			if got = said.Code; got != want {
				t.Errorf("commit %t, force %t: %v, want %q", commit, force, err, want)
			}
		} else if want != "" || err != nil {
			t.Errorf("commit %t, force %t: %v, want %q", commit, force, err, want)
		}
	}
	name := func() string {
		return f.value(1, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	}

	// Prepared and not decided: COMMIT alone is refused; ROLLBACK keeps the coordinator from committing.
	parts, clients := f.begin(1)
	resume := f.stall(t, nil, point{step: "decide"}, parts, clients)
	ends(name(), true, false, "55000")
	ends(name(), false, false, "")
	if outcome, code := resume(); outcome != RolledBack || code != "40001" {
		t.Error(outcome, code)
	}
	if on := f.where(1); on != "00" {
		t.Error(on)
	}

	// Decided: ROLLBACK is refused.
	parts, clients = f.begin(2)
	resume = f.stall(t, nil, point{step: "commit prepared", part: 1}, parts, clients)
	ends(name(), false, false, "55000")
	left := name()
	ends(left, true, false, "")
	ends(left, true, false, "42704")
	if outcome, _ := resume(); outcome != Committed {
		t.Error(outcome)
	}
	if on := f.where(2); on != "11" {
		t.Error(on)
	}

	// Forced, it is half a transaction, as the operator wished.
	parts, clients = f.begin(3)
	resume = f.stall(t, nil, point{step: "commit prepared", part: 1}, parts, clients)
	ends(name(), false, true, "")
	resume()
	if on := f.where(3); on != "10" {
		t.Error(on)
	}
	ends("mine", true, true, "22023")
	ends(left, true, true, "42704")
}
