package admin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"shardproxy/config"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// steering are the commands that change something.
func steering() []*command {
	return []*command{
		{name: "RELOAD", usage: "RELOAD", needs: maySteer, run: runReload,
			doc: "Reads the configuration file and puts it in force, all or nothing. It answers when that is done; what is wrong is in the error's detail."},
		{name: "PAUSE", usage: "PAUSE [database]", needs: maySteer, run: runPause, waits: true,
			doc: "Lends no more server connections of the database, or of all, and answers when those on loan have come back and all are closed. Statements wait, for at most pool.wait_timeout. A cancel request, a lost connection or RESUME ends the waiting; the first two also undo the pause."},
		{name: "RESUME", usage: "RESUME [database]", needs: maySteer, run: runResume,
			doc: "Undoes PAUSE and KILL."},
		{name: "KILL", usage: "KILL [database]", needs: maySteer, run: runKill,
			doc: "Ends all clients and closes all server connections of the database, or of all. Who connects afterwards waits until RESUME."},
		{name: "RECONNECT", usage: "RECONNECT [database]", needs: maySteer, run: runReconnect,
			doc: "Closes each server connection of the database, or of all, as soon as it is not on loan. New ones take their place."},
		{name: "SHUTDOWN", usage: "SHUTDOWN [WAIT_FOR_SERVERS | WAIT_FOR_CLIENTS]", needs: maySteer, run: runShutdown,
			doc: "Ends the process: at once; or each client when its transaction is over; or when the clients have left. No new clients are let in."},
		{name: "DISABLE", usage: "DISABLE database", needs: maySteer, run: disables(true),
			doc: "Turns new clients of the database away (55000). Those that are there are not touched. RELOAD keeps that, a restart does not."},
		{name: "ENABLE", usage: "ENABLE database", needs: maySteer, run: disables(false), doc: "Undoes DISABLE."},
		{name: "KILL_CLIENT", usage: "KILL_CLIENT id", needs: maySteer, run: runKillClient,
			doc: "Ends the client with this id, as SHOW CLIENTS has it (57P01). Sessions of the console have ids of their own, and are not ended."},
		{name: "WAIT_CLOSE", usage: "WAIT_CLOSE [database]", needs: maySteer, run: runWaitClose, waits: true,
			doc: "Answers when no server connection of the database, or of any, is left that is to be closed as soon as it comes back (close_needed of SHOW SERVERS), as after RECONNECT."},
		{name: "SUSPEND", usage: "SUSPEND", needs: maySteer, run: runSuspend,
			doc: "Refused (0A000). PgBouncer stops reading from its sockets by it, for another process to take them over; here a new process takes over by DRAIN or SHUTDOWN WAIT_FOR_CLIENTS of the old one."},
		{name: "DRAIN", usage: "DRAIN [OFF]", needs: maySteer, run: runDrain,
			doc: "Has /readyz say no, so that load balancers send no new clients to this proxy; those that come are served. SHUTDOWN WAIT_FOR_CLIENTS may follow. OFF undoes it."},
		{name: "BAN", usage: "BAN NODE 'host:port' [IN database]", needs: maySteer, run: bans(true),
			doc: "Keeps reads away from a replica, in all databases that have it, or in one. Connections to it are closed when they come back. One that takes writes cannot be banned, and one that comes to take them gets them: it is reads that a ban is about. While a shard has no primary and nothing else to read from, that is not used either. RELOAD keeps bans, a restart does not."},
		{name: "UNBAN", usage: "UNBAN NODE 'host:port' [IN database]", needs: maySteer, run: bans(false), doc: "Undoes BAN NODE."},
		{name: "MOVE", usage: "MOVE {PAUSE | RESUME | ABORT | ROLLBACK [id, ...] | COMPLETE [id, ...]} [IN database]", needs: maySteer, run: runMove, waits: true,
			doc: "Does what shardproxy rebalance pause, resume, abort, rollback and complete do, to the moves of a database of several shards, which must be named when there are several such. A notice tells of how many moves that was."},
		twoPC(),
	}
}

// targets returns the databases that a command names: one, or all of them.
func (s *session) targets(r request) ([]Database, *wire.Error) {
	all := s.console.opt.Source.Databases()
	if !r.hasArg {
		return all, nil
	}
	for _, d := range all {
		if d.Name == r.arg {
			return []Database{d}, nil
		}
	}
	if r.arg == config.ConsoleDatabase || r.arg == config.ConsoleAlias {
		return nil, wire.Errorf("0A000", "%s does not apply to the console's own database", strings.ToUpper(r.verb))
	}
	return nil, noDatabase(r.arg)
}

func noDatabase(name string) *wire.Error {
	return wire.Errorf("3D000", "no such database: %s", name).WithHint("SHOW DATABASES lists them.")
}

// each runs f for every database and returns the first error; a database that
// has gone since it was listed is an error only when it was named.
func (s *session) each(r request, all []Database, f func(Database) error) *wire.Error {
	var first *wire.Error
	for _, d := range all {
		err := f(d)
		if err == nil || errors.Is(err, ErrUnknownDatabase) && !r.hasArg {
			continue
		}
		if first == nil {
			first = steerError(err, d.Name)
		}
	}
	return first
}

// steerError puts what a Steerer returned in the client's words.
func steerError(err error, database string) *wire.Error {
	switch {
	case errors.Is(err, ErrUnknownDatabase):
		return noDatabase(database)
	case errors.Is(err, ErrResumed):
		return wire.Errorf("57014", "database %s was resumed while PAUSE waited for its servers", database)
	case errors.Is(err, context.Canceled):
		return wire.Errorf("57014", "canceling statement due to user request")
	}
	return wire.AsError(err)
}

func runReload(ctx context.Context, s *session, _ request) (result, *wire.Error) {
	if err := s.console.opt.Steerer.Reload(ctx); err != nil {
		return result{}, wire.Errorf("F0000", "RELOAD failed, the configuration in force is unchanged").
			WithDetail("%s", err.Error())
	}
	return result{tag: "RELOAD"}, nil
}

func runPause(ctx context.Context, s *session, r request) (result, *wire.Error) {
	all, werr := s.targets(r)
	if werr != nil {
		return result{}, werr
	}
	// All at once: one after the other, the last would go on working while the
	// first is waited for.
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, d := range all {
		wg.Go(func() { errs[i] = s.console.opt.Steerer.Pause(ctx, d.Name) })
	}
	wg.Wait()
	if ctx.Err() != nil && slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, ctx.Err()) }) {
		return result{}, s.undoPause(ctx, all)
	}
	i := 0
	werr = s.each(r, all, func(Database) error { i++; return errs[i-1] })
	return result{tag: "PAUSE"}, werr
}

// undoPause resumes what an interrupted PAUSE has paused, not what was paused
// before it.
func (s *session) undoPause(ctx context.Context, all []Database) *wire.Error {
	for _, d := range all {
		if d.Paused {
			continue
		}
		if err := s.console.opt.Steerer.Resume(d.Name); err != nil && !errors.Is(err, ErrUnknownDatabase) {
			return steerError(err, d.Name).WithDetail("PAUSE was interrupted and could not be undone.")
		}
	}
	return steerError(ctx.Err(), "").WithDetail("What PAUSE had paused has been resumed.")
}

func runResume(_ context.Context, s *session, r request) (result, *wire.Error) {
	all, werr := s.targets(r)
	if werr != nil {
		return result{}, werr
	}
	paused := slices.DeleteFunc(slices.Clone(all), func(d Database) bool { return !d.Paused })
	switch {
	case len(paused) > 0:
	case r.hasArg:
		return result{}, wire.Errorf("55000", "database %s is not paused", r.arg)
	default:
		return result{}, wire.Errorf("55000", "no database is paused")
	}
	werr = s.each(r, paused, func(d Database) error { return s.console.opt.Steerer.Resume(d.Name) })
	return result{tag: "RESUME"}, werr
}

func runKill(_ context.Context, s *session, r request) (result, *wire.Error) {
	all, werr := s.targets(r)
	if werr != nil {
		return result{}, werr
	}
	werr = s.each(r, all, func(d Database) error {
		n, err := s.console.opt.Steerer.Kill(d.Name)
		s.notes("clients killed", "database", d.Name, "clients", n)
		return err
	})
	return result{tag: "KILL"}, werr
}

func runReconnect(_ context.Context, s *session, r request) (result, *wire.Error) {
	all, werr := s.targets(r)
	if werr != nil {
		return result{}, werr
	}
	werr = s.each(r, all, func(d Database) error { return s.console.opt.Steerer.Reconnect(d.Name) })
	return result{tag: "RECONNECT"}, werr
}

func runShutdown(_ context.Context, s *session, r request) (result, *wire.Error) {
	mode := proxy.ShutdownNow
	switch {
	case !r.hasArg:
	case strings.EqualFold(r.arg, "wait_for_servers"):
		mode = proxy.WaitForServers
	case strings.EqualFold(r.arg, "wait_for_clients"):
		mode = proxy.WaitForClients
	default:
		return result{}, invalidCommand("SHUTDOWN " + r.arg)
	}
	// The client is answered first: the shutdown may take its connection.
	return result{tag: "SHUTDOWN", after: func() { s.console.opt.Steerer.Shutdown(mode) }}, nil
}
