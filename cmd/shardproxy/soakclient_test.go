package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// soakLoad is one kind of use.
type soakLoad struct {
	name    string
	user    string // "" for app
	clients int
	stays   bool // the first client keeps its session as long as it can, rests included
	alone   bool // it needs no session of its own
	pace    time.Duration
	step    func(*soakClient, context.Context) error
}

// soakClient is one who uses the program.
type soakClient struct {
	*soak
	txClient
	load  soakLoad
	stays bool
	r     *rand.Rand
	said  []string // the last statements
}

// run takes steps until ctx ends, and finishes the one that it is at.
func (c *soakClient) run(ctx context.Context) {
	for (c.load.alone || c.connected(ctx)) && ctx.Err() == nil {
		c.note(c.load.step(c, ctx))
		if !soakPause(ctx, c.load.pace/2+time.Duration(c.r.Int64N(int64(c.load.pace)))) {
			break
		}
	}
	if !c.stays {
		c.drop()
	}
}

// note counts a step, and fails the test when it failed as it may not. Behind an error the session may be in a
// transaction: the next step gets another.
func (c *soakClient) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps[c.load.name]++
	if err == nil {
		return
	}
	c.drop()
	state := sqlState(err)
	if state == "" {
		state = "lost"
	}
	c.ends[c.load.name+" "+state]++
	if !soakMayFail(err) && !(c.load.user != "" && state == "53400") {
		c.soak.t.Errorf("%s: %v, behind %q", c.load.name, err, c.said)
	}
}

// soakMayFail says whether an error is one of what harm and operators do, and of transactions that are in each other's way.
func soakMayFail(err error) bool {
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		return !errors.Is(err, errSoak)
	}
	return slices.Contains([]string{"57P01", "57P03", "08006", "08007", "08001", "40001", "40P01", "55P03"}, said.Code)
}

// errSoak is the kind of errors that nothing excuses.
var errSoak = errors.New("not as it should be")

// counts returns what was done, in lines.
func (s *soak) counts() string {
	var done, ends []string
	for _, l := range soakLoads() {
		if s.steps[l.name] == 0 {
			s.t.Errorf("%s was never done", l.name)
		}
		done = append(done, fmt.Sprintf("%s %d", l.name, s.steps[l.name]))
	}
	for _, k := range slices.Sorted(maps.Keys(s.ends)) {
		ends = append(ends, fmt.Sprintf("%s %d", k, s.ends[k]))
	}
	return "done: " + strings.Join(done, ", ") + "\nof these failed, as they may: " + strings.Join(ends, ", ")
}

// does runs statements one after the other.
func (c *soakClient) does(all ...string) error {
	for _, sql := range all {
		if _, _, err := c.query(sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// texts is does by simple queries.
func (c *soakClient) texts(all ...string) error {
	for _, sql := range all {
		if err := say(c.conn, sql); err != nil {
			return err
		}
	}
	return nil
}

// query is that of txClient, which remembers what was said.
func (c *soakClient) query(sql string, args ...any) ([][]any, string, error) {
	rows, tag, err := c.txClient.query(sql, args...)
	if c.said = append(c.said, fmt.Sprintf("%s: %s %v", time.Now().Format("05.000"), sql, err)); len(c.said) > 12 {
		c.said = c.said[1:]
	}
	return rows, tag, err
}

// refused runs a statement that has to fail with one of the codes, which are given in one text.
func (c *soakClient) refused(sql, codes string) error {
	_, _, err := c.query(sql)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s succeeds", errSoak, sql)
	case strings.Contains(codes, sqlState(err)) && sqlState(err) != "":
		return nil
	}
	return fmt.Errorf("%s: %w", sql, err)
}

// inBlock runs statements in a transaction, which ends in some way.
func (c *soakClient) inBlock(all ...string) error {
	return c.does(slices.Concat([]string{"BEGIN"}, all, []string{c.pick("COMMIT", "COMMIT", "ROLLBACK")})...)
}

func (c *soakClient) pick(of ...string) string { return of[c.r.IntN(len(of))] }

// account returns the number of one.
func (c *soakClient) account() int { return 1 + c.r.IntN(soakAccounts) }

// number returns one that nobody has had.
func (c *soakClient) number() int64 { return c.made.Add(1) }
