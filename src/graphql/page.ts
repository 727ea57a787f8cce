/** How many a list may give: said once, in the services' input schemas. */
import { pageSize, parse } from '../services/input.ts';

export const DEFAULT_PAGE = 100;

/**
 * @param first - As it came in; null counts as left out.
 * @throws ServiceError BAD_USER_INPUT outside 1 to 1000.
 */
export function parseFirst(first: number | null | undefined): number {
  return parse(pageSize, first ?? DEFAULT_PAGE, 'first');
}
