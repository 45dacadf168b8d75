package simulator

// account is what GET /account answers: the credits left and what the account may have at most.
type account struct {
	Account struct {
		Credits        float64 `json:"credits"`
		ResourceLimits Limits  `json:"resource_limits"`
		Username       string  `json:"username"`
	} `json:"account"`
}

// Limits are what the account may have at most. Those of cores, memory, storages and networks are enforced.
type Limits struct {
	Cores                 int `json:"cores"`
	DetachedFloatingIPs   int `json:"detached_floating_ips"`
	GPUs                  int `json:"gpus"`
	LoadBalancers         int `json:"load_balancers"`
	ManagedObjectStorages int `json:"managed_object_storages"`
	Memory                int `json:"memory"` // MiB
	NetworkPeerings       int `json:"network_peerings"`
	Networks              int `json:"networks"`
	NTPExcessGiB          int `json:"ntp_excess_gib"`
	PublicIPv4            int `json:"public_ipv4"`
	PublicIPv6            int `json:"public_ipv6"`
	StorageHDD            int `json:"storage_hdd"` // GiB
	StorageMaxIOPS        int `json:"storage_maxiops"`
	StorageSSD            int `json:"storage_ssd"`
}

func (s *Simulator) getAccount(*call) (any, error) {
	var out account
	out.Account.Credits = 100000
	out.Account.Username = s.cfg.Username
	if out.Account.Username == "" {
		out.Account.Username = DefaultUsername
	}
	out.Account.ResourceLimits = s.limits()
	return out, nil
}
