package metadata

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	rulesOne = `{"tables":{"orders":{"key":["customer_id"]}},"keys":["tenant_id"]}`
	rulesTwo = `{"tables":{"orders":{"key":["id"]},"items":{"reference":true}},"schemas":{"a":"s1"}}`
)

// TestRules stores the rules of the first configuration, finds others, and has them take the place of the first.
func TestRules(t *testing.T) {
	f := newFleet(t, 2)
	f.opts.Rules = rulesOne
	if r := mustInit(t, f.opts); !slices.ContainsFunc(r.Steps, func(s Step) bool { return s.What == "stored the rules by which rows are placed" }) {
		t.Errorf("%v", r)
	}
	if r := mustInit(t, f.opts); len(r.Steps) > 0 {
		t.Errorf("again: %v", r)
	}
	st, err := Check(t.Context(), f.opts)
	if err != nil || st.Cluster.Rules != rulesOne {
		t.Fatalf("%+v, %v", st, err)
	}
	f.opts.Rules = rulesTwo
	for doing, run := range map[string]func() error{
		"init":  func() error { _, err := Init(t.Context(), f.opts); return err },
		"check": func() error { _, err := Check(t.Context(), f.opts); return err },
	} {
		t.Run(doing, func(t *testing.T) {
			wantProblem(t, run(), "s0", ErrMismatch, `keys has no rule, and ["tenant_id"] in the cluster; schema a has the rule "s1", and none in the cluster; table items has the rule {"reference":true}, `+
				`and none in the cluster; table orders has the rule {"key":["id"]}, and {"key":["customer_id"]} in the cluster`)
		})
	}
	home := f.dbs[0].Connect("app")
	store := func(unserved bool) error {
		m, _, err := Load(t.Context(), home)
		if err != nil {
			t.Fatal(err)
		}
		return StoreRules(t.Context(), home, m.Epoch(), m.Close(m.Epoch()+1, false), rulesTwo, unserved)
	}
	if _, err := Acknowledge(t.Context(), home, Acknowledgement{Proxy: "p", Host: "h"}); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, store(true), "", ErrConflict, "the cluster is served by proxy p (h)")
	if err := PlanMoves(t.Context(), home, st.Map.Epoch(), []Move{{Slots: st.Map.SlotsOf("s0")[:1], Source: "s0", Target: "s1"}}); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, store(false), "", ErrConflict, "1 moves are under way")
	if _, err := AbortMoves(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	f.dbs[0].Exec("UPDATE shardproxy.moves SET phase = 'aborted'")
	if err := store(false); err != nil {
		t.Fatal(err)
	}
	if _, err := Forget(t.Context(), home, "p"); err != nil {
		t.Fatal(err)
	}
	if err := store(true); err != nil {
		t.Fatal(err)
	}
	if st, err = Check(t.Context(), f.opts); err != nil || st.Cluster.Rules != rulesTwo || st.Map.Epoch() != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := StoreRules(t.Context(), home, 1, st.Map.Close(2, false), rulesOne, false); !errors.Is(err, ErrConflict) {
		t.Errorf("from an old epoch: %v", err)
	}
}

// TestRulesUpgraded: a cluster that comes from a version without rules gets those of whoever upgrades it.
func TestRulesUpgraded(t *testing.T) {
	f := newFleet(t, 2)
	f.opts.Rules = rulesOne
	mustInit(t, f.opts)
	f.dbs[0].Exec("DROP TABLE shardproxy.rules; UPDATE shardproxy.cluster SET schema_version = 8")
	if r := mustInit(t, f.opts); !strings.Contains(r.String(), "stored the rules") {
		t.Errorf("%v", r)
	}
	f.opts.Rules = rulesTwo
	if _, err := Check(t.Context(), f.opts); !errors.Is(err, ErrMismatch) {
		t.Errorf("%v", err)
	}
}
