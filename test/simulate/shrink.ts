/**
 * The shortest history that still breaks a promise: delta debugging (Zeller, "Simplifying and Isolating Failure-Inducing Input", 2002) over the steps, then
 * each step made plainer, then fewer replicas in a plainer setup.
 */
import type { Step } from '../replication/player.ts';
import type { Plan } from './plan.ts';

/** More attempts than this change little and take long. */
const ATTEMPTS = 4000;

export function shrink(plan: Plan, breaks: (plan: Plan) => boolean): Plan {
  let best = plan;
  let left = ATTEMPTS;
  const attempt = (candidate: Plan): boolean => {
    if (left-- <= 0) return false;
    if (!breaks(candidate)) return false;
    best = candidate;
    return true;
  };
  for (let before: Plan | null = null; before !== best; ) {
    before = best;
    fewerSteps(() => best, attempt);
    for (const plainer of setups(best)) attempt(plainer);
    for (let i = 0; i < best.steps.length; i++) {
      for (const step of plainerSteps(best.steps[i] as Step)) attempt({ ...best, steps: best.steps.with(i, step) });
    }
  }
  return best;
}

/** Leaves out runs of steps, long ones first. */
function fewerSteps(best: () => Plan, attempt: (plan: Plan) => boolean): void {
  for (let length = Math.ceil(best().steps.length / 2); length > 0; length = length === 1 ? 0 : Math.ceil(length / 2)) {
    for (let start = 0; start < best().steps.length; ) {
      if (!attempt({ ...best(), steps: best().steps.toSpliced(start, length) })) start += length;
    }
  }
}

function* setups(plan: Plan): Generator<Plan> {
  for (let count = 2; count < plan.policies.length; count++) yield { ...plan, policies: plan.policies.slice(0, count) };
  if (plan.fields.length > 1) yield { ...plan, fields: plan.fields.slice(0, 1) };
  for (const unique of [[], plan.unique.slice(0, 1)]) if (unique.length < plan.unique.length) yield { ...plan, unique };
  if (plan.topology !== 'chain') yield { ...plan, topology: 'chain' };
  if (plan.policies.some((policy) => policy !== 'manual')) yield { ...plan, policies: plan.policies.map(() => 'manual') };
}

function* plainerSteps(step: Step): Generator<Step> {
  switch (step.do) {
    case 'write':
    case 'open':
      if (step.all) yield { ...step, all: false };
      if (step.key > 0) yield { ...step, key: 0 };
      if (step.field > 0) yield { ...step, field: 0 };
      break;
    case 'sync':
      if (step.fates.length > 0) yield { ...step, fates: [] };
      if (step.fates.length > 1) yield { ...step, fates: step.fates.slice(0, -1) };
      if (step.limit < 100) yield { ...step, limit: 100 };
      break;
    case 'deliver':
    case 'answer':
      if (step.which > 0) yield { ...step, which: 0 };
      if (step.again) yield { ...step, again: false };
      break;
    case 'addField':
      if (step.fill !== undefined) yield { ...step, fill: undefined };
      break;
    case 'skew':
      if (Math.abs(step.by) > 100) yield { ...step, by: Math.sign(step.by) * 100 };
      break;
  }
}
