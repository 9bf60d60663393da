package twopc

import (
	"context"
	"errors"
	"strings"
	"testing"

	"shardproxy/wire"
)

// scripted is a Conn that answers one step with an error.
type scripted struct {
	step string
	err  error
	log  []string
}

func (s *scripted) Exec(_ context.Context, sql string) error {
	s.log = append(s.log, sql)
	if step := stepOf(sql); step != "" && step == s.step {
		return naming(s.err, sql)
	}
	return nil
}

// naming is an error that names the transaction that sql decides.
func naming(err error, sql string) error {
	var said *wire.Error
	_, gid, ok := strings.Cut(sql, "decide('")
	if !ok || !errors.As(err, &said) {
		return err
	}
	e := *said
	gid, _, _ = strings.Cut(gid, "'")
	e.Detail = strings.ReplaceAll(e.Detail, "GID", gid)
	return &e
}

// TestOutcomes gives each statement each kind of error.
func TestOutcomes(t *testing.T) {
	refusal, ended := wire.Errorf("42501", "no"), wire.Fatal("57P01", "ended")
	proxys, broken := wire.Errorf("08006", "lost"), errors.New("broken")
	for _, test := range []struct {
		step    string
		part    int
		err     error
		outcome Outcome
		code    string
		ends    [2]string // the last statement of each part
	}{
		{"prepare", 1, refusal, RolledBack, "42501", [2]string{"ROLLBACK", "ROLLBACK"}},
		{"prepare", 1, wire.Errorf("53100", "could not write: No space left on device"), RolledBack, "53100", [2]string{"ROLLBACK", "ROLLBACK"}},
		{"prepare", 1, wire.Errorf("53200", "maximum number of prepared transactions reached"), RolledBack, "53200", [2]string{"ROLLBACK", "ROLLBACK"}},
		{"decide", 0, wire.Errorf("53100", "could not extend file: No space left on device"), RolledBack, "53100", [2]string{"ROLLBACK", "ROLLBACK PREPARED"}},
		{"prepare", 1, ended, RolledBack, "57P01", [2]string{"ROLLBACK", "PREPARE TRANSACTION"}},
		{"prepare", 1, broken, RolledBack, "08006", [2]string{"ROLLBACK", "PREPARE TRANSACTION"}},
		{"decide", 0, refusal, RolledBack, "42501", [2]string{"ROLLBACK", "ROLLBACK PREPARED"}},
		{"decide", 0, wire.Errorf("23505", "there already").WithDetail("Key (gid)=(GID) already exists."), RolledBack, "40001", [2]string{"ROLLBACK", "ROLLBACK PREPARED"}},
		{"decide", 0, broken, RolledBack, "08006", [2]string{"decide", "ROLLBACK PREPARED"}},
		{"decide", 0, wire.Errorf("23505", "the client's own").WithDetail("Key (id)=(1) already exists."), RolledBack, "23505", [2]string{"ROLLBACK", "ROLLBACK PREPARED"}},
		{"commit", 0, refusal, RolledBack, "42501", [2]string{"ROLLBACK", "ROLLBACK PREPARED"}},
		{"commit", 0, ended, Unknown, "08007", [2]string{"COMMIT", "PREPARE TRANSACTION"}},
		{"commit", 0, proxys, Unknown, "08007", [2]string{"COMMIT", "PREPARE TRANSACTION"}},
		{"commit", 0, broken, Unknown, "08007", [2]string{"COMMIT", "PREPARE TRANSACTION"}},
		{"commit prepared", 1, refusal, Committed, "", [2]string{"COMMIT", "COMMIT PREPARED"}},
		{"commit prepared", 1, wire.Errorf("42704", "done"), Committed, "", [2]string{"COMMIT", "COMMIT PREPARED"}},
		{"commit prepared", 1, broken, Committed, "", [2]string{"COMMIT", "COMMIT PREPARED"}},
	} {
		f := &fleet{t: t, cluster: someCluster}
		conns := []*scripted{{}, {}}
		conns[test.part].step, conns[test.part].err = test.step, test.err
		r, err := NewResolver(ResolverOptions{Cluster: someCluster})
		if err != nil {
			t.Fatal(err)
		}
		outcome, said := f.commit(t.Context(), r, []Part{{"s0", conns[0]}, {"s1", conns[1]}})
		if outcome != test.outcome || (said == nil) != (test.code == "") || said != nil && said.Code != test.code {
			t.Errorf("%s, %v: %v, %v; want %v, %s", test.step, test.err, outcome, said, test.outcome, test.code)
		}
		for i, c := range conns {
			if last := c.log[len(c.log)-1]; !strings.Contains(last, test.ends[i]) {
				t.Errorf("%s, %v: the last of part %d is %s, want %s", test.step, test.err, i, last, test.ends[i])
			}
		}
		// The Resolver hears of what may be left, and of nothing else.
		left := len(r.abandoned) == 1
		if want := after(test.err, open) == lost && test.step != "decide" && !strings.Contains(test.err.Error(), "42704") ||
			test.step == "commit prepared" && test.err == refusal; left != want || len(r.live) != 0 {
			t.Errorf("%s, %v: left: %t", test.step, test.err, left)
		}
	}
}
