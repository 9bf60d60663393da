package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/verify"
)

// moveFlags are those of the commands about moves that are under way.
type moveFlags struct {
	config, database string
	json             bool
	timeout          time.Duration
}

func (f *moveFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	fs.StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	fs.DurationVar(&f.timeout, "timeout", 0, "for all of it; 0: none")
}

// withHome runs something with a connection to the home shard's primary.
func (f *moveFlags) withHome(cmd *cobra.Command, run func(ctx context.Context, home *pgx.Conn, conf *config.Database) error) error {
	cfg, conf, err := databaseOf(cmd, f.config, f.database)
	if err != nil {
		return err
	}
	if len(conf.Shards) < 2 {
		return fmt.Errorf("database %q has one shard: there are no slots to move; see shardproxy init", conf.Name)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := limited(ctx, f.timeout)
	defer cancel()
	home, err := primaryOf(cfg, conf, 0)(ctx)
	if err != nil {
		return &exitError{exitProblems, fmt.Sprintf("shard %s: %s", conf.Shards[0].Name, verify.Told(err))}
	}
	defer endConn(home)
	if _, err := home.Exec(ctx, linkSetup); err != nil {
		return &exitError{exitProblems, fmt.Sprintf("shard %s: %s", conf.Shards[0].Name, verify.Told(err))}
	}
	return run(ctx, home, conf)
}

func rebalanceStartCommand() *cobra.Command {
	f := newPlanFlags()
	c := &cobra.Command{
		Use:   "start",
		Short: "Plan moves of slots and have the proxies carry them out",
		Long: "Start plans as plan does, prints the plan, and stores its moves, which one of the running proxies carries out,\n" +
			"one after the other, while applications run. See rebalance watch, status and abort.\n" +
			"Exit code 0: stored, or nothing to do, 1: something is in the way, 2: the shards could not be asked.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, true) },
	}
	f.flags(c)
	f.startFlags(c)
	return c
}

// startFlags are those that a plan which is carried out has beside.
func (f *planFlags) startFlags(c *cobra.Command) {
	c.Flags().BoolVar(&f.reversible, "reversible", false, "keep the sources as the targets are, until rebalance complete or rollback; moves have any number of slots unless --step-slots is given")
	c.Flags().StringVar(&f.pgDump, "pg-dump", "", "pg_dump program for the schema of shards that join; looked for when not given")
}

// start stores the moves of a plan: shards join first, and leave last.
func (p *planned) start(ctx context.Context, cfg *config.Config, home *pgx.Conn, out io.Writer) error {
	moves := p.moves()
	if len(moves) == 0 {
		return nil
	}
	if err := p.prepareJoins(ctx, cfg, out); err != nil {
		return err
	}
	if err := metadata.PlanMoves(ctx, home, p.current.Epoch(), moves); err != nil {
		return errors.Join(&exitError{exitBlocked, err.Error()}, err)
	}
	all, err := metadata.Acknowledged(ctx, home)
	if err != nil { // they are stored all the same
		_, err = fmt.Fprintf(out, "moves are stored; it is not known which proxies run: %s\n", err)
		return err
	}
	if len(all) == 0 {
		_, err = fmt.Fprintln(out, "moves are stored; no proxy runs that could carry them out")
		return err
	}
	_, err = fmt.Fprintf(out, "moves are stored; one of %d proxies carries them out: shardproxy rebalance watch\n", len(all))
	return err
}

// moves are those that are stored for a plan.
func (p *planned) moves() (all []metadata.Move) {
	home := p.conf.Shards[0].Name
	for _, s := range p.added {
		all = append(all, metadata.Move{Kind: metadata.MoveJoin, Source: home, Target: s.Name})
	}
	for _, m := range p.plan.Moves {
		all = append(all, metadata.Move{Kind: metadata.MoveSlots, Slots: m.Slots, Source: m.From, Target: m.To, Rows: m.Amount.Rows, Reversible: p.f.reversible})
	}
	for _, name := range p.f.remove {
		left := len(p.current.SlotsOf(name))
		for _, m := range p.plan.Moves {
			if m.From == name {
				left -= len(m.Slots)
			}
		}
		if left == 0 {
			all = append(all, metadata.Move{Kind: metadata.MoveLeave, Source: name, Target: home})
		}
	}
	return all
}

// prepareJoins makes shards ready that are to join: each is marked as the cluster's, and gets what the home shard has beside rows.
func (p *planned) prepareJoins(ctx context.Context, cfg *config.Config, out io.Writer) error {
	if len(p.added) == 0 {
		return nil
	}
	o := clusterOptions(p.whole, func(i int) metadata.Connect { return primaryOf(cfg, p.whole, i) })
	for _, s := range p.added {
		if !p.configured(s.Name) {
			return &exitError{exitProblems, "--add " + s.Name + ": the configuration has no such shard; name it there last, and start every proxy with it before it joins"}
		}
		o.Join = append(o.Join, s.Name)
	}
	r, err := metadata.Init(ctx, o)
	if err != nil {
		return &exitError{exitProblems, err.Error()}
	}
	for _, s := range r.Steps {
		fmt.Fprintf(out, "shard %s: %s\n", s.Shard, s.What)
	}
	for i, s := range p.whole.Shards {
		if !slices.Contains(o.Join, s.Name) {
			continue
		}
		r, err := copySchema(ctx, cfg, p.whole, i, copySchemaOptions{pgDump: p.f.pgDump})
		if err != nil {
			return &exitError{exitProblems, fmt.Sprintf("shard %s cannot join: %s", s.Name, verify.Told(err))}
		}
		if _, err := io.WriteString(out, r.String()); err != nil {
			return err
		}
	}
	return nil
}

func rebalanceStatusCommand() *cobra.Command {
	return showMovesCommand("status", "Say which slots move, and how far that is", false)
}

func rebalanceHistoryCommand() *cobra.Command {
	return showMovesCommand("history", "Say which slots have moved, and which moves were given up and why", true)
}

// showMovesCommand prints the moves that have not ended, or with ended the last ones.
func showMovesCommand(use, short string, ended bool) *cobra.Command {
	var f moveFlags
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withHome(cmd, func(ctx context.Context, home *pgx.Conn, conf *config.Database) error {
				s, err := readMoveStatus(ctx, home, conf, ended)
				if err != nil {
					return err
				}
				return f.print(cmd.OutOrStdout(), s)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
	return c
}

func rebalanceAbortCommand() *cobra.Command {
	return endMovesCommand("abort", "Give up the moves that are under way or to come",
		"Abort gives up the moves whose slots have not changed their owner yet: their rows stay where they were, and\n"+
			"what was copied is deleted. A move whose slots have changed their owner goes on to its end.",
		func(ctx context.Context, home *pgx.Conn, _ []int64) (string, error) {
			n, err := metadata.AbortMoves(ctx, home)
			return fmt.Sprintf("given up: %d; going on to their end: %d%s\n", n.Aborted, n.GoOn, keptMoves(n.Kept)), err
		}, false)
}

func rebalanceCompleteCommand() *cobra.Command {
	return endMovesCommand("complete", "Have the sources of reversible moves give up their rows",
		"Complete ends moves of rebalance start --reversible whose slots have changed their owner: the shards that they came from delete\n"+
			"their rows, and nothing can be rolled back any more.",
		func(ctx context.Context, home *pgx.Conn, ids []int64) (string, error) {
			n, err := metadata.CompleteMoves(ctx, home, ids)
			return fmt.Sprintf("to be completed: %d%s\n", n.Wanted, keptMoves(n.Kept)), err
		}, true)
}

func rebalanceRollbackCommand() *cobra.Command {
	return endMovesCommand("rollback", "Have the slots of reversible moves return to where they came from",
		"Rollback returns the slots of moves of rebalance start --reversible to the shards that they came from, with all that was written since.\n"+
			"Moves whose slots have not changed their owner yet are given up, as by abort. Shards that have joined stay.",
		func(ctx context.Context, home *pgx.Conn, ids []int64) (string, error) {
			n, err := metadata.RollBackMoves(ctx, home, ids)
			return fmt.Sprintf("to be rolled back: %d; given up: %d; going on to their end: %d%s\n", n.Wanted, n.Aborted, n.GoOn, keptMoves(n.Kept)), err
		}, true)
}

// keptMoves says how many moves wait to be completed or rolled back.
func keptMoves(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; waiting for complete or rollback: %d", n)
}

// endMovesCommand asks for the end of moves, with chosen of those of --move.
func endMovesCommand(use, short, long string, ask func(context.Context, *pgx.Conn, []int64) (string, error), chosen bool) *cobra.Command {
	var f moveFlags
	ids := []int64{}
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withHome(cmd, func(ctx context.Context, home *pgx.Conn, _ *config.Database) error {
				said, err := ask(ctx, home, ids)
				if err == nil {
					_, err = io.WriteString(cmd.OutOrStdout(), said)
				}
				return err
			})
		},
	}
	f.add(c)
	if chosen {
		c.Flags().Int64SliceVar(&ids, "move", ids, "only the move with this number, as status has it; may be given several times")
	}
	return c
}

func rebalancePauseCommand() *cobra.Command {
	return pauseMovesCommand("pause", "Have moves come to no further phase, until they are resumed",
		"Pause lets no move begin another phase: no writes are held, and no other move begins. A copy that is under way goes on to its end, and\n"+
			"changes are followed; a move whose slots have just changed their owner lets writes go on first.", true)
}

func rebalanceResumeCommand() *cobra.Command {
	return pauseMovesCommand("resume", "Have moves go on that are paused", "", false)
}

func pauseMovesCommand(use, short, long string, paused bool) *cobra.Command {
	var f moveFlags
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withHome(cmd, func(ctx context.Context, home *pgx.Conn, _ *config.Database) error {
				n, err := metadata.PauseMoves(ctx, home, paused)
				if err == nil {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%sd: %d\n", use, n)
				}
				return err
			})
		},
	}
	f.add(c)
	return c
}

func rebalanceForgetCommand() *cobra.Command {
	var f moveFlags
	c := &cobra.Command{
		Use:   "forget proxy",
		Short: "Have moves not wait for a proxy that runs no more",
		Long: "Moves wait for every proxy that serves the cluster. One that was killed cannot take leave, and is still waited for:\n" +
			"status names it. Forget takes it away. A proxy that still runs must not be forgotten: it would go on by an old slot map.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.withHome(cmd, func(ctx context.Context, home *pgx.Conn, _ *config.Database) error {
				found, err := metadata.Forget(ctx, home, args[0])
				if err == nil && !found {
					err = fmt.Errorf("there is no proxy %q: see shardproxy rebalance status", args[0])
				}
				return err
			})
		},
	}
	f.add(c)
	return c
}

// moveStatus is what is printed of the moves.
type moveStatus struct {
	Database string         `json:"database"`
	Epoch    int64          `json:"epoch"`
	Moves    []movePrinted  `json:"moves"`
	Proxies  []proxyPrinted `json:"proxies"`
}

type movePrinted struct {
	ID     int64    `json:"id"`
	Kind   string   `json:"kind"`
	From   string   `json:"from"`
	To     string   `json:"to"`
	Slots  []uint16 `json:"slots"`
	Phase  string   `json:"phase"`
	Paused bool     `json:"paused,omitempty"`
	// Reversible is whether it can be rolled back, Wanted what is to become of it then, Back that it is rolled back.
	Reversible bool      `json:"reversible,omitempty"`
	Wanted     string    `json:"wanted,omitempty"`
	Back       bool      `json:"back,omitempty"`
	Rows       int64     `json:"rows,omitempty"`
	Copied     int64     `json:"copied_rows"`
	Purged     int64     `json:"purged_rows"`
	HeldMs     int       `json:"held_ms"`
	Said       string    `json:"said,omitempty"`
	Planned    time.Time `json:"planned_at"`
	Changed    time.Time `json:"changed_at"`
}

type proxyPrinted struct {
	Proxy      string `json:"proxy"`
	Host       string `json:"host"`
	Epoch      int64  `json:"epoch"`
	Writes     int64  `json:"writes_epoch"`
	Statements int64  `json:"statements_epoch"`
	AgeMs      int64  `json:"told_ms_ago"`
}

func readMoveStatus(ctx context.Context, home *pgx.Conn, conf *config.Database, ended bool) (*moveStatus, error) {
	now, _, err := metadata.Load(ctx, home)
	if err != nil {
		return nil, &exitError{exitProblems, err.Error()}
	}
	moves, err := metadata.Moves(ctx, home, ended)
	if err != nil {
		return nil, &exitError{exitProblems, err.Error()}
	}
	proxies, err := metadata.Acknowledged(ctx, home)
	if err != nil {
		return nil, &exitError{exitProblems, err.Error()}
	}
	s := &moveStatus{Database: conf.Name, Epoch: now.Epoch(), Moves: []movePrinted{}, Proxies: []proxyPrinted{}}
	for _, m := range moves {
		p := movePrinted{ID: m.ID, Kind: string(m.Kind), From: m.Source, To: m.Target, Phase: string(m.Phase), Paused: m.Paused, Reversible: m.Reversible, Wanted: string(m.Wanted), Back: m.Back, Rows: m.Rows, Copied: m.Copied, Purged: m.Purged, HeldMs: m.HeldMs, Said: m.Said, Planned: m.PlannedAt, Changed: m.Changed}
		for _, slot := range m.Slots {
			p.Slots = append(p.Slots, uint16(slot))
		}
		s.Moves = append(s.Moves, p)
	}
	for _, a := range proxies {
		s.Proxies = append(s.Proxies, proxyPrinted{a.Proxy, a.Host, a.Epoch, a.Writes, a.Statements, a.Age.Milliseconds()})
	}
	return s, nil
}

// what says what the move does.
func (m *movePrinted) what() string {
	switch metadata.MoveKind(m.Kind) {
	case metadata.MoveJoin:
		return fmt.Sprintf("move %d, shard %s joins", m.ID, m.To)
	case metadata.MoveLeave:
		return fmt.Sprintf("move %d, shard %s leaves", m.ID, m.From)
	}
	if m.Back {
		return fmt.Sprintf("move %d, %d slots back from %s to %s", m.ID, len(m.Slots), m.From, m.To)
	}
	return fmt.Sprintf("move %d, %d slots from %s to %s", m.ID, len(m.Slots), m.From, m.To)
}

// kept reports whether it waits to be completed or rolled back.
func (m *movePrinted) kept() bool {
	return m.Phase == string(metadata.MoveReversing) && m.Wanted == ""
}

// waits reports whether it does not go on by itself: it is kept, or a shard that leaves has rows of one of these moves that is.
func (m *movePrinted) waits(all []movePrinted) bool {
	if m.Kind == string(metadata.MoveLeave) && m.Phase == string(metadata.MovePlanned) {
		return slices.ContainsFunc(all, func(k movePrinted) bool { return k.kept() && (k.From == m.From || k.To == m.From) })
	}
	return m.kept()
}

// line is one move in a line.
func (m *movePrinted) line() string {
	line := m.what() + ": " + m.Phase
	if m.kept() {
		line += ", until complete or rollback"
	}
	if m.Copied > 0 {
		line += fmt.Sprintf(", %d rows copied", m.Copied)
	}
	if m.Purged > 0 {
		line += fmt.Sprintf(", %d purged", m.Purged)
	}
	if m.HeldMs > 0 && m.Kind != string(metadata.MoveLeave) && metadata.MovePhase(m.Phase).Flipped() {
		line += fmt.Sprintf(", writes held for %d ms", m.HeldMs)
	}
	if m.Said != "" {
		line += "; " + strings.ReplaceAll(m.Said, "\n", "\n  ")
	}
	return line
}

func (f *moveFlags) print(out io.Writer, s *moveStatus) error {
	if f.json {
		return printJSON(out, s)
	}
	if _, err := fmt.Fprintf(out, "database %s, epoch %d\n", s.Database, s.Epoch); err != nil {
		return err
	}
	if len(s.Moves) == 0 {
		fmt.Fprintln(out, "no moves")
	}
	for i := range s.Moves {
		if _, err := fmt.Fprintln(out, s.Moves[i].line()); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROXY\tHOST\tEPOCH\tWRITES\tSTATEMENTS\tTOLD")
	for _, p := range s.Proxies {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%v ago\n", p.Proxy, p.Host, p.Epoch, p.Writes, p.Statements, (time.Duration(p.AgeMs) * time.Millisecond).Round(100*time.Millisecond))
	}
	return w.Flush()
}
