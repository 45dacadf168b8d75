package local

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

const (
	simulatorUser     = "simulator" // the simulator's own defaults: this account exists nowhere else
	simulatorPassword = "simulator"
)

var disksDir = filepath.Join(stateDir, "disks")

// startSimulator starts the simulated UpCloud with real disks, real load balancers and real routes behind it.
func (c *Cluster) startSimulator(ctx context.Context) error {
	temporary := filepath.Join(stateDir, "tmp") // where the next start finds what a killed simulator leaves
	if err := os.Mkdir(temporary, 0o700); err != nil {
		return err
	}
	err := c.start(machine.Program{
		Name: "upcloud-sim", Env: []string{"TMPDIR=" + temporary},
		Args: []string{filepath.Join(c.config.Programs, "upcloud-sim"), "--listen", simulatorAddress(),
			"--metadata-listen", netip.AddrPortFrom(metadata.Addr(), 80).String(), "--profile", c.config.Profile,
			"--disks", "loop", "--disks-dir", disksDir, "--load-balancers", "haproxy", "--load-balancer-interface", publicBridge, "--routers", "kernel",
			"--public-network", publicNetwork.String(), "--username", simulatorUser, "--password", simulatorPassword, "--log-requests"},
		Namespace: c.fabric,
	})
	if err != nil {
		return err
	}
	forward, err := newForwarder(c.fabric, simulatorAddress())
	if err != nil {
		return err
	}
	c.forwarders = append(c.forwarders, forward)
	c.status.SimulatorURL = "http://" + forward.Address()
	c.status.Username, c.status.Password = simulatorUser, simulatorPassword
	c.account = c.status.Account()
	return c.until(ctx, "the simulator answers", func(ctx context.Context) error {
		_, err := c.account.GetAccount(ctx)
		return err
	})
}

// Account is a client of the simulated account.
func (s Status) Account() *service.Service {
	return service.New(client.New(s.Username, s.Password, client.WithBaseURL(s.SimulatorURL), client.WithTimeout(30*time.Second)))
}

func (c *Cluster) makePrivateNetwork(ctx context.Context) (uuid string, err error) {
	router, err := c.account.CreateRouter(ctx, &request.CreateRouterRequest{Name: "local-cluster"})
	if err != nil {
		return "", fmt.Errorf("make the router of the nodes' private network: %w", err)
	}
	network, err := c.account.CreateNetwork(ctx, &request.CreateNetworkRequest{
		Name:   "local-cluster",
		Zone:   c.zone,
		Router: router.UUID,
		IPNetworks: upcloud.IPNetworkSlice{{
			Address:          privateNetwork.String(),
			Gateway:          privateGateway.Addr().String(),
			DHCP:             upcloud.True,
			DHCPDefaultRoute: upcloud.False,
			Family:           upcloud.IPAddressFamilyIPv4,
		}},
	})
	if err != nil {
		return "", fmt.Errorf("make the nodes' private network: %w", err)
	}
	return network.UUID, nil
}

// makeServer makes the simulated server of node number i and waits until it has started.
func (c *Cluster) makeServer(ctx context.Context, i int, network string) (uuid string, public netip.Addr, err error) {
	name := c.nodeNames()[i]
	server, err := c.account.CreateServer(ctx, &request.CreateServerRequest{
		Hostname: name,
		Title:    name,
		Zone:     c.zone,
		Plan:     "2xCPU-4GB",
		Metadata: upcloud.True,
		StorageDevices: request.CreateServerStorageDeviceSlice{{
			Action: request.CreateServerStorageDeviceActionCreate,
			Title:  name + " boot disk",
			Size:   10,
			Tier:   upcloud.StorageTierMaxIOPS,
		}},
		Networking: &request.CreateServerNetworking{Interfaces: request.CreateServerInterfaceSlice{
			{Type: upcloud.NetworkTypePublic, IPAddresses: request.CreateServerIPAddressSlice{{Family: upcloud.IPAddressFamilyIPv4}}},
			// Pods send under their own addresses, which are not the server's.
			{Type: upcloud.NetworkTypePrivate, Network: network, SourceIPFiltering: upcloud.False, IPAddresses: request.CreateServerIPAddressSlice{
				{Family: upcloud.IPAddressFamilyIPv4, Address: nodeAddress(i).Addr().String()}}},
		}},
	})
	if err != nil {
		return "", netip.Addr{}, fmt.Errorf("make the server of %s: %w", name, err)
	}
	err = c.until(ctx, "the server of "+name+" has started", func(ctx context.Context) error {
		if server, err = c.account.GetServerDetails(ctx, &request.GetServerDetailsRequest{UUID: server.UUID}); err != nil {
			return err
		}
		if server.State != upcloud.ServerStateStarted {
			return fmt.Errorf("the server is in state %s", server.State)
		}
		return nil
	})
	if err != nil {
		return "", netip.Addr{}, err
	}
	public, err = publicAddress(server)
	return server.UUID, public, err
}

func publicAddress(server *upcloud.ServerDetails) (netip.Addr, error) {
	for _, address := range server.IPAddresses {
		if address.Access == upcloud.IPAddressAccessPublic && address.Family == upcloud.IPAddressFamilyIPv4 {
			return netip.ParseAddr(address.Address)
		}
	}
	return netip.Addr{}, fmt.Errorf("server %s has no public IPv4 address", server.UUID)
}
