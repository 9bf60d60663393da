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
	"time"

	"github.com/spf13/cobra"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/rebalance"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/verify"
)

// exitBlocked is rebalance plan's exit code when something is in the way of the moves.
const exitBlocked = 1

// planFlags are the flags of rebalance plan.
type planFlags struct {
	config, database string
	add, weights     []string
	remove, tenants  []string
	slots, to, by    string
	exact, json      bool
	threshold        percentFlag
	maxSlots         int
	stepSlots        int
	maxBytes         sizeFlag
	stepBytes, rate  sizeFlag
	timeout          time.Duration
	lockWait         time.Duration
	pgDump           string // of start
	reversible       bool   // of start
}

// defaultRate is what a move may be expected to carry in a second, indexes being made included.
const defaultRate = 20 << 20

func newPlanFlags() *planFlags {
	return &planFlags{threshold: rebalance.DefaultThreshold, stepBytes: sizeFlag(rebalance.DefaultStepBytes), rate: defaultRate}
}

func rebalancePlanCommand() *cobra.Command {
	f := newPlanFlags()
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say which slots would move, how much lies in them, and what is in the way",
		Long: "Plan asks all shards what lies in their slots and says which should move, in which order, so that\n" +
			"the shards have equal shares, or so that shards may join or leave, or given slots change their shard.\n" +
			"It writes nothing anywhere. Rows and bytes are estimates from the servers' statistics, unless --exact\n" +
			"has them counted, which reads all tables.\n" +
			"Exit code 0: a plan, or nothing to do, 1: something is in the way, 2: the shards could not be asked.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, false) },
	}
	f.flags(c)
	return c
}

// flags are those of a plan.
func (f *planFlags) flags(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	fs.StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	fs.StringArrayVar(&f.add, "add", nil, "shard that is to join: its name in the configuration, or to plan only with its nodes: s4=host:port[,host:port]")
	fs.StringArrayVar(&f.remove, "remove", nil, "shard that is to leave")
	fs.StringArrayVar(&f.weights, "weight", nil, "a shard's share in relation to the others', s1=2; 1 when not given")
	fs.StringVar(&f.by, "by", string(rebalance.BySlots), "what is spread evenly: slots, rows or bytes")
	fs.Var(&f.threshold, "threshold", "how far from its share a shard may stay")
	fs.StringArrayVar(&f.tenants, "move-tenant", nil, "the slot of this key is to move to --to, and nothing else: orders.customer_id=42")
	fs.StringVar(&f.slots, "slots", "", "these slots are to move to --to, and nothing else: 17,18,100-120")
	fs.StringVar(&f.to, "to", "", "shard that --slots and --move-tenant are for")
	fs.BoolVar(&f.exact, "exact", false, "count the rows of each slot, which reads all tables")
	fs.IntVar(&f.maxSlots, "max-slots", 0, "how many slots may move in all; 0: any number")
	fs.Var(&f.maxBytes, "max-bytes", "how much may move in all; 0: any amount")
	fs.IntVar(&f.stepSlots, "step-slots", rebalance.DefaultStepSlots, "how many slots one move may have")
	fs.Var(&f.stepBytes, "step-bytes", "how much one move may have; a slot that has more moves alone")
	fs.Var(&f.rate, "rate", "bytes per second, for the expected time")
	fs.BoolVar(&f.json, "json", false, "print one JSON object")
	fs.DurationVar(&f.lockWait, "lock-wait", 5*time.Second, "how long a table is waited for that is locked")
	fs.DurationVar(&f.timeout, "timeout", 0, "for all of it; 0: none")
}

// sensible refuses flags that say nothing together.
func (f *planFlags) sensible(cmd *cobra.Command) error {
	given := f.slots != "" || len(f.tenants) > 0
	switch {
	case given && f.to == "":
		return errors.New("--slots and --move-tenant need --to")
	case f.to != "" && !given:
		return errors.New("--to needs --slots or --move-tenant")
	case f.maxSlots < 0 || f.stepSlots < 1 || f.stepBytes < 1 || f.rate < 1 || f.timeout < 0 || f.lockWait <= 0:
		return errors.New("--max-slots and --timeout are not negative, --step-slots, --step-bytes, --rate and --lock-wait more than 0")
	}
	if f.reversible && !cmd.Flags().Changed("step-slots") {
		f.stepSlots = shardmap.MaxSlots // each move keeps a replication slot
	}
	for _, name := range []string{"remove", "weight", "by", "threshold"} {
		if given && cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s does not go with --slots and --move-tenant: nothing else moves then", name)
		}
	}
	return nil
}

// planned is what a plan is made of.
type planned struct {
	f       *planFlags
	conf    *config.Database // without shards that are spare
	whole   *config.Database // with them
	current *shardmap.Map
	added   []config.Shard
	members []shardmap.Member
	tenants []*tenant
	at      []shardmap.Slot // of the tenants
	slots   []shardmap.Slot // of --slots

	slotted  *router.Slotted
	tables   []*slottedTable
	loads    []*rebalance.ShardLoad // by the shards of the configuration
	held     []*rebalance.Blocker   // what keeps shards from leaving
	blockers []*rebalance.Blocker   // what is in the way of every move
	plan     *rebalance.Plan
}

// slottedTable is a table that is sharded by hash.
type slottedTable struct {
	of          router.SlottedTable
	table       *rebalance.Table // nil when blocker says why it cannot move
	blocker     *rebalance.Blocker
	rows, bytes int64
}

// root is the name by which its rows are written: its own, or that of the table that it is a partition of.
func (s *slottedTable) root() [2]string {
	t := s.of.Table
	if t.Root != nil {
		t = t.Root
	}
	return [2]string{t.Schema, t.Name}
}

// run plans, and with start has the plan carried out.
func (f *planFlags) run(cmd *cobra.Command, start bool) error {
	if err := f.sensible(cmd); err != nil {
		return err
	}
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
	p, links, err := f.plan(ctx, cfg, conf)
	if links != nil {
		defer links.close()
	}
	if err != nil {
		return err
	}
	r := p.report()
	r.starts = start && len(p.moves()) > 0
	if f.json {
		err = printJSON(cmd.OutOrStdout(), r)
	} else {
		_, err = io.WriteString(cmd.OutOrStdout(), r.text())
	}
	if err == nil && p.blocked() {
		return &exitError{code: exitBlocked}
	}
	if err == nil && start {
		out := cmd.OutOrStdout()
		if f.json {
			out = io.Discard // the plan is one object
		}
		err = p.start(ctx, cfg, links.all[0].conn, out)
	}
	return err
}

// plan asks the shards and plans. The links to them are the caller's to close, also with an error, when there are any.
func (f *planFlags) plan(ctx context.Context, cfg *config.Config, conf *config.Database) (*planned, *shardLinks, error) {
	links, err := openLinks(ctx, cfg, conf)
	if err != nil {
		return nil, nil, &exitError{exitProblems, err.Error()}
	}
	p := &planned{f: f, conf: links.conf, whole: conf}
	if err := p.readFlags(); err != nil {
		return nil, links, err
	}
	if err := p.ask(ctx, links); err != nil {
		return nil, links, err
	}
	return p, links, p.make()
}

// readFlags reads what needs no server.
func (p *planned) readFlags() error {
	weight := map[string]int{}
	for _, text := range p.f.weights {
		name, n, err := parseWeight(text)
		if err != nil {
			return err
		}
		weight[name] = n
	}
	names := map[string]bool{}
	for _, s := range p.conf.Shards {
		names[s.Name] = true
		if !slices.Contains(p.f.remove, s.Name) {
			p.members = append(p.members, shardmap.Member{Name: s.Name, Weight: max(weight[s.Name], 1)})
		}
	}
	for _, name := range p.f.remove {
		if !names[name] {
			return fmt.Errorf("--remove %s: there is no such shard", name)
		}
		if weight[name] > 0 {
			return fmt.Errorf("--weight %s: it is to leave", name)
		}
	}
	for _, text := range p.f.add {
		s, err := p.parseShard(text)
		if err != nil {
			return err
		}
		if names[s.Name] {
			return fmt.Errorf("--add %s: there is a shard of this name already", s.Name)
		}
		names[s.Name] = true
		p.added = append(p.added, s)
		p.members = append(p.members, shardmap.Member{Name: s.Name, Weight: max(weight[s.Name], 1)})
	}
	for name := range weight {
		if !names[name] {
			return fmt.Errorf("--weight %s: there is no such shard", name)
		}
	}
	for _, text := range p.f.tenants {
		t, err := parseTenant(text)
		if err != nil {
			return err
		}
		p.tenants = append(p.tenants, t)
	}
	return nil
}

// parseShard reads a shard that is to join: one of the configuration by its name, or another one with its nodes.
func (p *planned) parseShard(text string) (config.Shard, error) {
	name, _, _ := strings.Cut(text, "=")
	for _, s := range p.whole.Shards {
		if s.Name != strings.TrimSpace(name) || slices.ContainsFunc(p.conf.Shards, func(of config.Shard) bool { return of.Name == s.Name }) {
			continue
		}
		given, err := parseShard(text)
		if err == nil && !slices.Equal(given.Nodes, s.Nodes) {
			return s, fmt.Errorf("--add %s: the configuration has other nodes for it: give its name alone", text)
		}
		return s, nil
	}
	return parseShard(text)
}

// configured reports whether the configuration has a shard.
func (p *planned) configured(name string) bool {
	return slices.ContainsFunc(p.whole.Shards, func(s config.Shard) bool { return s.Name == name })
}

// ask asks the shards.
func (p *planned) ask(ctx context.Context, links *shardLinks) error {
	p.current = links.status.Map
	if p.f.slots != "" {
		var err error
		if p.slots, err = parseSlots(p.f.slots, p.current.Slots()); err != nil {
			return err
		}
	}
	c, err := catalog.LoadTables(ctx, links.all[0].conn)
	if err != nil {
		return &exitError{exitProblems, fmt.Sprintf("shard %s: read the catalog: %s", links.all[0].shard, verify.Told(err))}
	}
	p.slotted = router.SlottedTables(p.conf, c)
	p.judge()
	for _, t := range p.tenants {
		table, err := t.find(p.tables)
		if err != nil {
			return err
		}
		slot, err := rebalance.SlotOfValue(ctx, links.all[0].conn, table.table, t.value)
		if err != nil {
			return fmt.Errorf("--move-tenant %s: %s", t.text, verify.Told(err))
		}
		p.at = append(p.at, slot)
	}
	var tables []*rebalance.Table
	for _, t := range p.tables {
		if t.table != nil {
			tables = append(tables, t.table)
		}
	}
	p.loads = make([]*rebalance.ShardLoad, len(links.all))
	if err := errors.Join(links.each(func(i int) (err error) {
		name := links.all[i].shard
		own := rebalance.NewSet(p.current.SlotsOf(name), p.current.Slots())
		if p.loads[i], err = rebalance.ReadLoad(ctx, links.all[i].conn, name, tables, own, rebalance.LoadOptions{Exact: p.f.exact, LockTimeout: p.f.lockWait}); err != nil {
			return fmt.Errorf("shard %s: %s", name, verify.Told(err))
		}
		return nil
	})...); err != nil {
		return &exitError{exitProblems, err.Error()}
	}
	for _, l := range p.loads {
		p.blockers = append(p.blockers, l.Blockers...)
		for _, t := range l.Tables {
			at := slices.IndexFunc(p.tables, func(s *slottedTable) bool { return s.table == t.Table })
			p.tables[at].rows += t.Rows
			p.tables[at].bytes += t.Bytes
		}
	}
	return nil
}

// judge finds what cannot move.
func (p *planned) judge() {
	for _, of := range p.slotted.Tables {
		t := &slottedTable{of: of}
		if t.table, t.blocker = movable(of, p.current.Slots()); t.blocker != nil {
			p.blockers = append(p.blockers, t.blocker)
		}
		p.tables = append(p.tables, t)
	}
	p.blockers = append(p.blockers, placeless(p.slotted)...)
	for _, gone := range p.f.remove {
		p.held = append(p.held, staysOn(p.slotted, gone)...)
	}
}

// staysOn says what lies on a shard by the configuration, and keeps it from leaving.
func staysOn(of *router.Slotted, shard string) (all []*rebalance.Blocker) {
	for _, t := range of.Fixed {
		if slices.Contains(t.On, shard) {
			all = append(all, &rebalance.Blocker{Table: sqlName(t.Table), Shard: shard, Reason: "its rows lie there by " + t.By + " and do not move with slots",
				Hint: "move them, and have its rule name other shards"})
		}
	}
	for _, s := range of.Schemas {
		if s.Shard == shard {
			all = append(all, &rebalance.Blocker{Shard: shard, Reason: "schema " + s.Name + " lies there by its rule and does not move with slots", Hint: "move it, and have its rule name another shard"})
		}
	}
	return all
}

// blocked reports whether the plan cannot be done as it is.
func (p *planned) blocked() bool {
	return len(p.plan.Blockers) > 0 || len(p.held) > 0 || len(p.plan.Moves) > 0 && len(p.blockers) > 0
}

// make makes the plan.
func (p *planned) make() error {
	r := rebalance.PlanRequest{
		Current: p.current, Members: p.members, By: rebalance.Strategy(p.f.by), Load: rebalance.NewLoad(p.current.Slots()), Pinned: map[shardmap.Slot]string{},
		Threshold: float64(p.f.threshold), MaxSlots: p.f.maxSlots, MaxBytes: int64(p.f.maxBytes), StepSlots: p.f.stepSlots, StepBytes: int64(p.f.stepBytes),
	}
	for _, l := range p.loads {
		r.Load.Add(l.Load)
	}
	for _, s := range p.slotted.Schemas {
		if s.Shard == "" {
			slot := p.current.SlotOf(s.Hash)
			r.Pinned[slot] = strings.TrimPrefix(r.Pinned[slot]+", and schema "+s.Name+" lies in it as a whole", ", and ")
		}
	}
	if slots := append(p.at, p.slots...); len(slots) > 0 {
		r.Given = []rebalance.GivenSlots{{Slots: slots, To: p.f.to}}
	}
	var err error
	p.plan, err = rebalance.MakePlan(r)
	return err
}
