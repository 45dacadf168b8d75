// Package guest is how the tests reach into their virtual machine: Serve runs inside and executes programs, a Client asks
// it to from outside. It knows nothing of what is tested.
package guest

// Ports inside the guest.
const (
	AgentPort = 1000 // HTTP: POST /exec, /start, /kill
	CSIPort   = 1001 // connections go on to CSISocket
)

// CSISocket is where the node plugin is to serve.
const CSISocket = "/run/csi.sock"

// command is the body of a request to execute a program.
type command struct {
	Args  []string `json:"args"`
	Stdin []byte   `json:"stdin,omitempty"`
	Env   []string `json:"env,omitempty"` // beside those that the agent has
	Name  string   `json:"name,omitempty"`
}

// statusTrailer carries the exit status of a program, after its output.
const statusTrailer = "Exit-Status"
