package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"shardproxy/proxy"
)

// run opens the program and obeys signals until it has ended.
func (p *program) run() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer p.close()
	if err := p.open(ctx); err != nil {
		return err
	}
	p.notify(daemon.SdNotifyReady)
	return p.obey(signals)
}

// obey returns when a shutdown is over. Signals mean what they mean to
// PgBouncer; a second one that ends the process hardens the first.
func (p *program) obey(signals <-chan os.Signal) error {
	var done chan struct{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	end := func(mode proxy.ShutdownMode) {
		if done != nil || mode == proxy.ShutdownNow {
			p.log.Info("shutting down now")
			cancel()
			if done != nil {
				return
			}
		}
		p.notify(daemon.SdNotifyStopping)
		p.log.Info("shutting down", "mode", shutdownName(mode))
		done = make(chan struct{})
		p.tidying.Go(p.leaveAdmin)
		go func() {
			defer close(done)
			p.drain(ctx, mode)
		}()
	}
	for {
		select {
		case <-done:
			return nil
		case mode := <-p.shutdown:
			end(mode)
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				p.notifyReloading()
				p.ordered("reload", p.reload) // logged there
				p.notify(daemon.SdNotifyReady)
			case syscall.SIGTERM:
				p.begins("signal", "shutdown wait_for_clients")
				end(proxy.WaitForClients)
			case syscall.SIGINT:
				p.begins("signal", "shutdown wait_for_servers")
				end(proxy.WaitForServers)
			case syscall.SIGQUIT:
				p.begins("signal", "shutdown")
				end(proxy.ShutdownNow)
			case syscall.SIGUSR1:
				p.begins("signal", "pause")
				p.pauseAll(ctx)
			case syscall.SIGUSR2:
				p.begins("signal", "resume")
				p.resumeAll()
			}
		}
	}
}

// drain runs one shutdown, at most for the configured time.
func (p *program) drain(ctx context.Context, mode proxy.ShutdownMode) {
	if t := p.state.Load().cfg.Shutdown.Timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	p.server.Shutdown(ctx, mode)
}

func shutdownName(m proxy.ShutdownMode) string {
	return map[proxy.ShutdownMode]string{
		proxy.ShutdownNow: "now", proxy.WaitForServers: "wait for servers", proxy.WaitForClients: "wait for clients",
	}[m]
}

// pauseAll lends no more server connections, at once. That those on loan come
// back is waited for until SIGUSR2, or the end of ctx.
func (p *program) pauseAll(ctx context.Context) {
	for name, db := range p.state.Load().databases {
		if db.paused() {
			continue
		}
		go func() {
			if db.pause(ctx) == nil { // else resumed, or ending
				p.log.Info("no server connection is open any more", "database", name)
			}
		}()
		for !db.paused() { // a SIGUSR2 that comes next must not come first
			runtime.Gosched()
		}
	}
	p.log.Info("paused by signal")
}

func (p *program) resumeAll() {
	for _, db := range p.state.Load().databases {
		db.resume()
	}
	p.log.Info("resumed by signal")
}

// notify tells systemd, if it started us.
func (p *program) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.log.Warn("systemd not notified", "error", err)
	}
}

// notifyReloading must carry the monotonic time in the same datagram, or
// systemd takes the reload for failed.
func (p *program) notifyReloading() {
	now := daemon.SdNotifyMonotonicUsec()
	if now == "" {
		return
	}
	p.notify(daemon.SdNotifyReloading + "\n" + now)
}

// inheritedListeners returns the sockets that systemd passed.
func inheritedListeners() ([]net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	var got []net.Listener
	for _, l := range all {
		if l != nil {
			got = append(got, l)
		}
	}
	return got, nil
}
