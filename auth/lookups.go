package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/config"
)

const (
	// maxRoleBytes is the longest name a role can have. The server would cut a
	// longer one and find somebody else.
	maxRoleBytes = 63
	// doubtAfter is how old a cached answer must be before a wrong password
	// makes us ask again: a changed password works within a second, and a
	// guesser cannot make us ask more often.
	doubtAfter = time.Second
)

// UserRecord is what a server knows of a user.
type UserRecord struct {
	// Password is rolpassword: a SCRAM-SHA-256 verifier, an md5 hash, or "" for NULL.
	Password config.Secret
	// ValidUntil is when the password expires, zero for never.
	ValidUntil time.Time
}

// Querier looks a user up on a server; ServerQuerier is one.
type Querier interface {
	// QueryUser runs sql with the user's name as its only parameter on a server
	// of the database's home shard. found is false when no role of that name
	// may log in. It must pin search_path, for the name comes from a client
	// that has proven nothing yet.
	QueryUser(ctx context.Context, database, sql, user string) (rec UserRecord, found bool, err error)
}

// errFormat is a rolpassword that is neither SCRAM nor md5.
var errFormat = errors.New("auth_query returned a password of an unknown format")

// lookups is auth_query with its cache, under one Settings. Concurrent
// attempts of one user share one query.
type lookups struct {
	query   config.AuthQuery
	querier Querier
	now     func() time.Time
	results *prometheus.CounterVec

	mu      sync.Mutex
	answers *simplelru.LRU[lookupKey, answer]
	running map[lookupKey]*lookup
}

// lookupKey is a user of the servers of a database.
type lookupKey struct{ database, user string }

// answer is a cached result; account is nil for "no such user".
type answer struct {
	account *account
	at      time.Time
}

// lookup is a query that runs. Its results may be read when done is closed.
type lookup struct {
	done      chan struct{}
	account   *account
	err       error
	abandoned bool // the attempt that ran it gave up: somebody else must ask
}

func newLookups(q config.AuthQuery, querier Querier, now func() time.Time, results *prometheus.CounterVec) (*lookups, error) {
	answers, err := simplelru.NewLRU[lookupKey, answer](max(1, q.CacheSize), nil)
	return &lookups{
		query: q, querier: querier, now: now, results: results,
		answers: answers, running: make(map[lookupKey]*lookup),
	}, err
}

// find returns the user's account, nil when there is no such user.
func (l *lookups) find(ctx context.Context, key lookupKey) (*account, error) {
	if len(key.user) > maxRoleBytes || !utf8.ValidString(key.user) {
		return nil, nil
	}
	for {
		acct, ok, run, mine := l.join(key)
		switch {
		case ok:
			l.results.WithLabelValues("cached").Inc()
			return acct, nil
		case mine:
			l.run(ctx, run, key)
			return run.account, run.err
		}
		select {
		case <-run.done:
			if !run.abandoned {
				return run.account, run.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// join returns a fresh answer, or the running lookup of the user; mine says
// that it was begun here and that the caller must run it.
func (l *lookups) join(key lookupKey) (acct *account, ok bool, run *lookup, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if got, ok := l.answers.Get(key); ok {
		ttl := l.query.CacheTime
		if got.account == nil {
			ttl = l.query.CacheMissTime
		}
		if l.now().Sub(got.at) < ttl {
			return got.account, true, nil, false
		}
		l.answers.Remove(key)
	}
	if run := l.running[key]; run != nil {
		return nil, false, run, false
	}
	run = &lookup{done: make(chan struct{}), abandoned: true}
	l.running[key] = run
	return nil, false, run, true
}

// run asks the server and hands the result to all who wait.
func (l *lookups) run(ctx context.Context, run *lookup, key lookupKey) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.running, key)
		if !run.abandoned && run.err == nil {
			l.answers.Add(key, answer{run.account, l.now()})
		}
		close(run.done)
	}()
	limited, cancel := context.WithTimeout(ctx, l.query.Timeout)
	defer cancel()
	rec, found, err := l.querier.QueryUser(limited, key.database, l.query.Query, key.user)
	if err != nil {
		run.err = fmt.Errorf("auth_query: %w", err)
		run.abandoned = ctx.Err() != nil
		l.results.WithLabelValues("error").Inc()
		return
	}
	run.abandoned = false
	if !found {
		l.results.WithLabelValues("absent").Inc()
		return
	}
	l.results.WithLabelValues("found").Inc()
	run.account = recordAccount(key.user, rec)
}

// recordAccount makes an account of a server's record.
func recordAccount(user string, rec UserRecord) *account {
	a := &account{User: config.User{Name: user}, until: rec.ValidUntil}
	if rec.Password.Empty() {
		a.absent = errNoPassword
		return a
	}
	var err error
	if a.scram, a.md5, err = parseVerifier(rec.Password.Reveal()); err != nil {
		a.absent = errFormat // the parser's error could quote a secret
	}
	return a
}

// doubt forgets the answer about a user whose password did not fit, unless it
// is new.
func (l *lookups) doubt(key lookupKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if got, ok := l.answers.Peek(key); ok && l.now().Sub(got.at) >= doubtAfter {
		l.answers.Remove(key)
	}
}

// size returns how many answers are kept. It may be called on nil.
func (l *lookups) size() int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers.Len()
}
