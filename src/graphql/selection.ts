/** What an operation asks for below a field, known before the field is resolved. */
import { Kind, type GraphQLResolveInfo, type SelectionSetNode } from 'graphql';

/** Whether one of these fields is asked for, by itself or in fragments. One that `@skip` or `@include` leaves out counts as well. */
export function asksFor({ fieldNodes, fragments }: GraphQLResolveInfo, names: ReadonlySet<string>): boolean {
  const visited = new Set<string>();
  const within = (set: SelectionSetNode | undefined): boolean =>
    set?.selections.some((selection) => {
      if (selection.kind === Kind.FIELD) return names.has(selection.name.value);
      if (selection.kind === Kind.INLINE_FRAGMENT) return within(selection.selectionSet);
      const { value: name } = selection.name;
      // Fragments that spread each other twice would be walked through 2^n times.
      if (visited.has(name)) return false;
      visited.add(name);
      return within(fragments[name]?.selectionSet);
    }) ?? false;
  return fieldNodes.some(({ selectionSet }) => within(selectionSet));
}
