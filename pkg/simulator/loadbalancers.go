package simulator

type loadBalancer struct{ LoadBalancer }

type certificateBundle struct{ uuid string }

func (s *Simulator) loadBalancerRoutes() []route { return nil }
