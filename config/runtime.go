package config

// Drivers of sessions.
const (
	DriverAuto      = "auto"
	DriverLoop      = "loop"
	DriverGoroutine = "goroutine"
)

// WaitPlain and WaitHybrid are how a loop waits.
const (
	WaitHybrid = "hybrid"
	WaitPlain  = "plain"
)

// Runtime says how sessions use the machine. Nobody needs to change it.
type Runtime struct {
	// Driver is loop (a few event loops run all sessions, on Linux), goroutine (each
	// session has one) or auto (loop where there is one). Default: auto.
	Driver string `yaml:"driver" enum:"auto|loop|goroutine" default:"auto" apply:"restart"`
	// Loops is the number of event loops; 0 is one for four processors. Default: 0.
	Loops int `yaml:"loops" default:"0" min:"0" max:"256" apply:"restart"`
	// Wait is hybrid or plain: whether a busy loop waits past Go's scheduler. Default: hybrid.
	Wait string `yaml:"wait" enum:"hybrid|plain" default:"hybrid" apply:"restart"`
}
