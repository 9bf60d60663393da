package auth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestServerQuerierLife(t *testing.T) {
	s := newServer(t)
	q := s.querier("postgres", 2)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, found, err := q.QueryUser(context.Background(), "shop", configQuery, "app"); err != nil || !found {
				t.Errorf("%t, %v", found, err)
			}
		})
	}
	all.Wait()
	if n := s.dialled(); n < 1 || n > 2 {
		t.Errorf("%d connections for a limit of 2", n)
	}
	// Every kept connection dies; nobody notices.
	s.Exec("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", s.Name)
	if _, found, err := q.QueryUser(context.Background(), "shop", configQuery, "app"); err != nil || !found {
		t.Errorf("after the connections died: %t, %v", found, err)
	}
	// A role that may not log in is nobody, though this query returns it.
	s.create([2]string{"life_nologin", "NOLOGIN PASSWORD 'x'"})
	bare := "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
	if rec, found, err := q.QueryUser(context.Background(), "shop", bare, "life_nologin"); err != nil || found || !rec.Password.Empty() {
		t.Errorf("NOLOGIN: %t, %v", found, err)
	}
	before := s.dialled()
	q.Reset()
	if _, _, err := q.QueryUser(context.Background(), "shop", configQuery, "app"); err != nil || s.dialled() != before+1 {
		t.Errorf("after a reset: %v, %d dials, %d before", err, s.dialled(), before)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, _, err := q.QueryUser(ctx, "shop", "SELECT passwd, pg_sleep(60)::text FROM pg_shadow WHERE usename = $1", "app"); err == nil {
		t.Error("a lookup outlived its time")
	}
	if _, _, err := q.QueryUser(context.Background(), "other", configQuery, "app"); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("an unknown database: %v", err)
	}
	for range 2 {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := q.QueryUser(context.Background(), "shop", configQuery, "app"); !errors.Is(err, errQuerierClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestServerQuerierResetWhileBusy: a connection that was in use during a Reset
// is not kept.
func TestServerQuerierResetWhileBusy(t *testing.T) {
	s := newServer(t)
	q := s.querier("postgres", 1)
	holder := s.Connect("postgres")
	exec := func(sql string) {
		t.Helper()
		if _, err := holder.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("SELECT pg_advisory_lock(4711)")
	var all sync.WaitGroup
	all.Go(func() {
		slow := "SELECT passwd FROM pg_shadow WHERE usename = $1 AND pg_advisory_xact_lock_shared(4711) IS NOT NULL"
		if _, found, err := q.QueryUser(context.Background(), "shop", slow, "app"); err != nil || !found {
			t.Errorf("the lookup that ran: %t, %v", found, err)
		}
	})
	for waiting := false; !waiting; {
		row := holder.QueryRow(t.Context(), "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
		if err := row.Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	q.Reset()
	exec("SELECT pg_advisory_unlock(4711)")
	all.Wait()
	if _, _, err := q.QueryUser(context.Background(), "shop", configQuery, "app"); err != nil || s.dialled() != 2 {
		t.Errorf("%v, %d dials", err, s.dialled())
	}
}

func TestApplyRole(t *testing.T) {
	early, late := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const earlyText, lateText = "2020-01-01 00:00:00+00", "2030-01-01 00:00:00+00"
	for _, c := range []struct {
		query time.Time // what the query said
		role  string    // what the role says
		want  time.Time
	}{
		{time.Time{}, "", time.Time{}}, {early, "", early}, {time.Time{}, earlyText, early}, {early, "infinity", early},
		{early, lateText, early}, {late, earlyText, early}, {time.Time{}, "infinity", time.Time{}},
	} {
		role := [][]byte{[]byte("true"), nil}
		if c.role != "" {
			role[1] = []byte(c.role)
		}
		rec, found, err := applyRole(UserRecord{ValidUntil: c.query}, role)
		if err != nil || !found || !rec.ValidUntil.Equal(c.want) {
			t.Errorf("%+v: %v, %t, %v", c, rec.ValidUntil, found, err)
		}
	}
	if rec, found, err := applyRole(UserRecord{ValidUntil: late}, nil); err != nil || !found || !rec.ValidUntil.Equal(late) {
		t.Errorf("a user who is no role: %v, %t, %v", rec, found, err)
	}
	if _, found, err := applyRole(UserRecord{}, [][]byte{[]byte("true"), []byte("soon")}); err == nil || found {
		t.Error("a time that cannot be read means never")
	}
}

func TestParseValidUntil(t *testing.T) {
	for s, want := range map[string]time.Time{
		"2020-01-02 03:04:05+00":        time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
		"2020-01-02 03:04:05.123456+00": time.Date(2020, 1, 2, 3, 4, 5, 123456000, time.UTC),
		"infinity":                      {},
		"-infinity":                     time.Unix(0, 0),
		"12345-02-29 00:00:00+00":       {},
		"0044-03-15 00:00:00+00 BC":     time.Unix(0, 0),
		"9999-12-31 23:59:59+00":        time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		if got, err := parseValidUntil(s); err != nil || !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "never", "2020-01-02", "01.02.2020 00:00:00 UTC", "2020-13-01 00:00:00+00", "x2345-01-01 00:00:00+00", " BC", "-", "12345-"} {
		if got, err := parseValidUntil(s); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

func FuzzParseValidUntil(f *testing.F) {
	f.Add("2020-01-02 03:04:05.123456+00")
	f.Add("0044-03-15 00:00:00+00 BC")
	f.Add("12345-02-29 00:00:00+00")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := parseValidUntil(s); err != nil && !got.IsZero() {
			t.Fatalf("%q: %v with %v", s, got, err)
		}
	})
}
