package admin

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"shardproxy/wire"
)

// disables returns what DISABLE and ENABLE do; both want a database, as PgBouncer has it.
func disables(on bool) func(context.Context, *session, request) (result, *wire.Error) {
	return func(_ context.Context, s *session, r request) (result, *wire.Error) {
		if !r.hasArg {
			return result{}, wire.Errorf("42601", "a database is required")
		}
		all, err := s.targets(r)
		if err != nil {
			return result{}, err
		}
		err = s.each(r, all, func(d Database) error { return s.console.opt.Steerer.Disable(d.Name, on) })
		return result{tag: strings.ToUpper(r.verb)}, err
	}
}

func runKillClient(_ context.Context, s *session, r request) (result, *wire.Error) {
	id, err := strconv.ParseUint(r.arg, 10, 64)
	switch {
	case !r.hasArg || err != nil:
		return result{}, wire.Errorf("42601", "KILL_CLIENT takes the id of a client").WithHint("SHOW CLIENTS has the ids.")
	case !s.console.opt.Steerer.KillClient(id):
		return result{}, wire.Errorf("42704", "client not found").WithDetail("No client has the id %d.", id)
	}
	return result{tag: "KILL_CLIENT"}, nil
}

// closePoll is how often WAIT_CLOSE looks.
const closePoll = 50 * time.Millisecond

func runWaitClose(ctx context.Context, s *session, r request) (result, *wire.Error) {
	all, err := s.targets(r)
	if err != nil {
		return result{}, err
	}
	of := map[string]bool{}
	for _, d := range all {
		of[d.Name] = true
	}
	for slices.ContainsFunc(s.console.opt.Source.Servers(), func(sv ServerConn) bool { return sv.Closing && of[sv.Database] }) {
		select {
		case <-ctx.Done():
			return result{}, steerError(ctx.Err(), "")
		case <-time.After(closePoll):
		}
	}
	return result{tag: "WAIT_CLOSE"}, nil
}

func runSuspend(context.Context, *session, request) (result, *wire.Error) {
	return result{}, wire.Errorf("0A000", "SUSPEND is not supported: sockets are not handed to another process").
		WithHint("PAUSE waits until no server connection is in use; DRAIN and SHUTDOWN WAIT_FOR_CLIENTS let another process take over.")
}

func runDrain(_ context.Context, s *session, r request) (result, *wire.Error) {
	if r.hasArg && !strings.EqualFold(r.arg, "off") {
		return result{}, invalidCommand("DRAIN " + r.arg)
	}
	s.console.opt.Steerer.Drain(!r.hasArg)
	return result{tag: "DRAIN"}, nil
}

func runMove(ctx context.Context, s *session, r request) (result, *wire.Error) {
	o := MoveOrder{Wanted: MoveWanted(r.name)}
	if r.hasArg {
		for text := range strings.SplitSeq(r.arg, ", ") {
			id, err := strconv.ParseInt(text, 10, 64)
			if err != nil || id < 1 {
				return result{}, wire.Errorf("42601", "MOVE takes ids of moves").WithHint("SHOW MOVES has the ids.")
			}
			o.IDs = append(o.IDs, id)
		}
	}
	var werr *wire.Error
	if o.Database, werr = s.moving(r); werr != nil {
		return result{}, werr
	}
	said, err := s.console.opt.Steerer.OrderMoves(ctx, o)
	if err != nil {
		return result{}, steerError(err, o.Database)
	}
	s.notes("moves ordered", "database", o.Database, "wanted", r.name, "said", said)
	return result{tag: "MOVE", notice: &wire.Error{Severity: "NOTICE", Code: "00000", Message: "database " + o.Database + ": " + said}}, nil
}

// moving returns the database whose moves are meant.
func (s *session) moving(r request) (string, *wire.Error) {
	name, err := movingIn(s.console.opt.Source.Databases(), r.in, r.hasIn)
	if err != nil && err.Code == "42601" {
		err = err.WithHint("MOVE ... IN database")
	}
	return name, err
}

// movingIn returns the database whose moves are meant: the one that was named, or the only one that has any.
func movingIn(all []Database, name string, named bool) (string, *wire.Error) {
	var names []string
	for i := range all {
		if all[i].Cluster != nil {
			names = append(names, all[i].Name)
		} else if named && all[i].Name == name {
			return "", wire.Errorf("55000", "database %s has one shard: nothing moves", name)
		}
	}
	switch {
	case named && slices.Contains(names, name):
		return name, nil
	case named:
		return "", noDatabase(name)
	case len(names) == 0:
		return "", wire.Errorf("55000", "no database has several shards: nothing moves")
	case len(names) > 1:
		return "", wire.Errorf("42601", "several databases have several shards: say which").
			WithDetail("They are %s.", strings.Join(names, ", "))
	}
	return names[0], nil
}

// bans returns what BAN NODE and UNBAN NODE do.
func bans(on bool) func(context.Context, *session, request) (result, *wire.Error) {
	return func(_ context.Context, s *session, r request) (result, *wire.Error) {
		if r.hasIn {
			if _, err := s.targets(request{verb: r.verb, arg: r.in, hasArg: true}); err != nil {
				return result{}, err
			}
		}
		n, err := s.console.opt.Steerer.BanNode(r.in, r.arg, on)
		switch {
		case err != nil:
			return result{}, steerError(err, r.in)
		case n == 0:
			return result{}, wire.Errorf("42704", "there is no node %q", r.arg).WithHint("SHOW NODES has the nodes, as host:port.")
		}
		return result{tag: strings.ToUpper(r.verb)}, nil
	}
}
