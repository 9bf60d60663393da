package auth

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"shardproxy/config"
)

// account is a user as an exchange sees it: from the configuration, from
// auth_query, or made up for a name that nobody has.
type account struct {
	config.User
	md5    string // stored md5 hash, "" when there is none
	scram  *scramKeys
	absent error     // why no password can be right; nil when one can
	until  time.Time // the end of the password's validity, zero for never

	// derived holds the keys made from Password; they are computed by the
	// first exchange that needs them.
	derived atomic.Pointer[scramKeys]
}

var (
	errNoPassword = errors.New("the user has no password")
	errExpired    = errors.New("the user's password has expired")
	errUnknown    = errors.New("the user does not exist")
)

// newAccount makes the account of a user of the configuration.
func newAccount(u config.User) (*account, error) {
	if u.Name == "" {
		return nil, errors.New("a user has no name")
	}
	if !u.Password.Empty() && !u.Verifier.Empty() {
		return nil, fmt.Errorf("user %q has both a password and a verifier", u.Name)
	}
	a := &account{User: u}
	if !u.Verifier.Empty() {
		var err error
		if a.scram, a.md5, err = parseVerifier(u.Verifier.Reveal()); err != nil {
			return nil, fmt.Errorf("verifier of user %q: %w", u.Name, err)
		}
	} else if u.Password.Empty() {
		a.absent = errNoPassword
	}
	return a, nil
}

// unusable says why no password of this account can be right now.
func (a *account) unusable(now time.Time) error {
	if a.absent == nil && !a.until.IsZero() && !now.Before(a.until) {
		return errExpired
	}
	return a.absent
}

// md5Hash returns the hash for an md5 exchange, "" when only SCRAM can do.
func (a *account) md5Hash() string {
	if !a.Password.Empty() {
		return hashMD5(a.Password.Reveal(), a.Name)
	}
	return a.md5
}

// deriver computes password hashes, a few at a time: a thousand clients that
// arrive together must not take all processors from the relay.
type deriver struct {
	slots chan struct{}
	salts salts
}

func newDeriver(limit int, s salts) *deriver {
	return &deriver{slots: make(chan struct{}, limit), salts: s}
}

func (d *deriver) acquire(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *deriver) release() { <-d.slots }

// keys returns the SCRAM keys of the account, nil when it has none (an md5
// hash, or no password).
func (d *deriver) keys(ctx context.Context, a *account) (*scramKeys, error) {
	if a.scram != nil || a.Password.Empty() {
		return a.scram, nil
	}
	if k := a.derived.Load(); k != nil {
		return k, nil
	}
	if err := d.acquire(ctx); err != nil {
		return nil, err
	}
	defer d.release()
	if k := a.derived.Load(); k != nil { // made while we waited
		return k, nil
	}
	k, err := deriveKeys(a.Password.Reveal(), d.salts.salt(a.Name), scramIterations)
	if err != nil {
		return nil, err
	}
	a.derived.Store(k)
	return k, nil
}

// check reports whether the password belongs to the keys.
func (d *deriver) check(ctx context.Context, k *scramKeys, password string) (bool, error) {
	if err := d.acquire(ctx); err != nil {
		return false, err
	}
	defer d.release()
	got, err := deriveKeys(password, k.salt, k.iterations)
	if err != nil {
		return false, err
	}
	return got.equal(k), nil
}
