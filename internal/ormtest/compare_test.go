package ormtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"shardproxy/internal/clientrun"
	"shardproxy/internal/pgcluster"
)

// directSuffix ends the name of an application's database that is reached
// directly.
const directSuffix = "_direct"

// leg is one of the two ways to a database.
type leg struct {
	name     string // "direct" or "proxy"
	port     int    // on localhost
	database string // as a client asks for it and as the servers call it
}

// legs returns both ways for an application.
func legs(name string) []leg {
	return []leg{
		{"direct", theStage.shards[0].Primary().Port(), name + directSuffix},
		{"proxy", theStage.port, name},
	}
}

// environment tells a script where to connect to. libpq reads most of it by
// itself. Nothing of the caller's own PG variables gets through.
func (l leg) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") {
			env = append(env, e)
		}
	}
	return append(env,
		"PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(l.port), "PGDATABASE="+l.database,
		"PGUSER="+pgcluster.AppUser, "PGPASSWORD="+pgcluster.AppPassword, "PGCONNECT_TIMEOUT=20",
		"LC_ALL=C.UTF-8", "TZ=UTC",
	)
}

// url is how a program in Go connects.
func (l leg) url() string {
	return fmt.Sprintf("%s:%s@127.0.0.1:%d/%s?sslmode=disable", pgcluster.AppUser, pgcluster.AppPassword, l.port, l.database)
}

// compare runs an application over both legs at once and reports each section
// that differs. It runs beside the other applications.
func compare(t *testing.T, name string, script func(leg) (string, error)) {
	t.Parallel()
	if err := clientrun.TouchSources(); err != nil {
		t.Fatal(err)
	}
	both := legs(name)
	transcripts, errs := make([]clientrun.Transcript, len(both)), make([]error, len(both))
	var wg sync.WaitGroup
	for i, l := range both {
		wg.Go(func() {
			var text string
			text, errs[i] = script(l)
			transcripts[i] = clientrun.ReadTranscript(text)
		})
	}
	wg.Wait()
	want, got := transcripts[0], transcripts[1]
	if len(want) == 0 && errs[0] == nil {
		t.Error("the script printed nothing")
	}
	want.Judge(t, got)
	for i, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", both[i].name, err)
		}
	}
}
