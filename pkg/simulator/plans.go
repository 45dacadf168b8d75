package simulator

// plan is a size of server with its price in one.
type plan struct {
	CoreNumber       int    `json:"core_number"`
	MemoryAmount     int    `json:"memory_amount"` // MiB
	Name             string `json:"name"`
	PublicTrafficOut int    `json:"public_traffic_out"` // GiB a month
	StorageSize      int    `json:"storage_size"`       // GiB
	StorageTier      string `json:"storage_tier"`
}

const customPlan = "custom"

var knownPlans = []plan{
	{1, 1024, "1xCPU-1GB", 1024, 25, "maxiops"},
	{1, 2048, "1xCPU-2GB", 2048, 50, "maxiops"},
	{2, 4096, "2xCPU-4GB", 4096, 80, "maxiops"},
	{4, 8192, "4xCPU-8GB", 5120, 160, "maxiops"},
	{6, 16384, "6xCPU-16GB", 6144, 320, "maxiops"},
	{8, 32768, "8xCPU-32GB", 7168, 640, "maxiops"},
	{12, 49152, "12xCPU-48GB", 9216, 960, "maxiops"},
	{16, 65536, "16xCPU-64GB", 10240, 1280, "maxiops"},
	{20, 131072, "20xCPU-128GB", 24576, 2048, "maxiops"},
	{20, 98304, "20xCPU-96GB", 12288, 1920, "maxiops"},
	{1, 1024, "DEV-1xCPU-1GB", 1024, 20, "standard"},
	{1, 2048, "DEV-1xCPU-2GB", 2048, 30, "standard"},
	{1, 4096, "DEV-1xCPU-4GB", 4096, 40, "standard"},
	{2, 4096, "DEV-2xCPU-4GB", 4096, 60, "standard"},
}

type planList struct {
	Plans struct {
		Plan []plan `json:"plan"`
	} `json:"plans"`
}

func (s *Simulator) listPlans(*call) (any, error) {
	var out planList
	out.Plans.Plan = knownPlans
	return out, nil
}

func planByName(name string) (plan, bool) {
	for _, p := range knownPlans {
		if p.Name == name {
			return p, true
		}
	}
	return plan{}, false
}
