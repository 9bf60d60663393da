package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// The rows of the table of totals: what SET shardproxy.snapshot says.
func totalRows() []string { return []string{"statement", "off"} }

// runTotals reads the bank's total on one connection while others transfer over the shards at a
// fixed rate. With the snapshot on, a total that is wrong is an error.
func (m *measurement) runTotals(ctx context.Context, t *transactionStage, snapshot string, e *endpoint) error {
	c, err := t.stage.login.dial(ctx, e.port, e.databaseName())
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.ask("SET shardproxy.snapshot = "+snapshot, "SET"); err != nil {
		return err
	}
	// The right total is one row, a wrong one none.
	read := "SELECT sum(balance) FROM " + bankTable + " HAVING sum(balance) = " + strconv.Itoa(bankAccounts*bankBalance)
	var reads series
	var done, wrong int
	stop := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		done, err = t.transferring(ctx, e, stop)
		return err
	})
	begun := time.Now()
	used, err := e.during(ctx, func() error {
		for time.Since(begun) < m.stage.options.each && ctx.Err() == nil {
			start := time.Now()
			if err := c.ask(read, "SELECT 1"); err != nil {
				if c.tag != "SELECT 0" || snapshot != "off" {
					return fmt.Errorf("a total: %w", err)
				}
				wrong++
			}
			reads = append(reads, time.Since(start).Seconds()*1000)
		}
		return nil
	})
	took := time.Since(begun)
	close(stop)
	if err := errors.Join(group.Wait(), err); err != nil {
		return err
	}
	add := func(figure string, v float64) { m.totals.add(snapshot, e.name, figure, v) }
	add("p50", reads.quantile(0.5))
	add("p99", reads.quantile(0.99))
	add("reads", float64(len(reads))/took.Seconds())
	add("transfers", float64(done)/took.Seconds())
	add("wrong", 100*float64(wrong)/math.Max(1, float64(len(reads))))
	add("cpu", used.cpu.Seconds()/took.Seconds())
	return nil
}

// transferring transfers at the fixed rate until stop is closed, and returns how often.
func (t *transactionStage) transferring(ctx context.Context, e *endpoint, stop <-chan struct{}) (int, error) {
	group, ctx := errgroup.WithContext(ctx)
	counts := make([]int, transferrers)
	for i := range transferrers {
		group.Go(func() error {
			tr, err := t.dial(ctx, acrossRow, e)
			if err != nil {
				return err
			}
			defer tr.close()
			// Each has accounts of its own: nobody waits for a row.
			mine := func(ids []int) int { return ids[i+transferrers*rand.IntN(len(ids)/transferrers)] }
			tick := time.NewTicker(transferrers * time.Second / transfersRate)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return nil
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
				if _, err := tr.run(mine(t.ids[0]), mine(t.ids[1])); err != nil {
					return fmt.Errorf("a transfer: %w", err)
				}
				counts[i]++
			}
		})
	}
	err := group.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return total, err
}

func (m *measurement) totalTable() table {
	var t table
	t.row("shardproxy.snapshot", "p50 ms", "/ off (range)", "p99 ms", "/ off", "reads a second", "transfers a second", "wrong totals, %", "CPU of the proxy, cores")
	for _, row := range totalRows() {
		get := func(figure string) series { return m.totals.get(row, shardsName, figure) }
		ratio := func(figure string) series { return get(figure).over(m.totals.get("off", shardsName, figure)) }
		t.row(row, get("p50").text(2), ratio("p50").span(2), get("p99").text(2), ratio("p99").text(2), get("reads").text(0), get("transfers").text(0),
			get("wrong").text(1), get("cpu").text(2))
	}
	return t
}
